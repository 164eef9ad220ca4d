"""Weight clustering: each layer keeps few distinct weights, so that an index of some bits stands for each.

Han et al., "Deep Compression", ICLR 2016: k-means over the weights of a layer, centroids at first evenly spread over
their range. Fine-tuning with straight-through gradients; centroids follow the weights. The file shrinks once
compressed, or stored as indices; what runs is as dense as before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from variants.recipes.codebook import k_means
from variants.training.fit import fit
from variants.training.layers import weight_layers
from variants.training.model import accuracy
from variants.training.recipe import Job, Recipe
from variants.training.settings import FitSettings

STEPS_BETWEEN = 20
"""Centroids move to the means of their weights after so many steps."""


@dataclass(frozen=True, slots=True)
class WeightClustering(Recipe):
    """Give each linear and convolutional layer at most `clusters` distinct weights, 2 to 256, while training.

    Where weights are pruned, zero is one more of them. Layers with no more weights than clusters stay as they are.
    """

    name: ClassVar[str] = "weight clustering"

    clusters: int = 16
    fit: FitSettings = field(default_factory=lambda: FitSettings(epochs=2, rate=3e-4))

    def __post_init__(self) -> None:
        if not 2 <= self.clusters <= 256:
            raise ValueError(f"clusters {self.clusters} must lie in 2 to 256")

    def apply(self, module: nn.Module, job: Job) -> nn.Module:
        """Cluster and train."""
        nearest: list[tuple[Any, NearestCentroid]] = []
        for layer in weight_layers(module).values():
            if layer.weight.numel() > self.clusters:
                centroids = first_centroids(layer.weight.detach(), self.clusters)
                parametrization = NearestCentroid(centroids)
                parametrize.register_parametrization(layer, "weight", parametrization)
                nearest.append((layer, parametrization))
        steps = 0

        def follow(_: float) -> None:
            nonlocal steps
            steps += 1
            if steps % STEPS_BETWEEN == 0:
                for layer, parametrization in nearest:
                    parametrization.move_to_means(layer.parametrizations.weight.original)

        # The best epoch's weights belong to centroids that have moved on since; the last epoch's are kept.
        fit(module, job, replace(self.fit, patience=None), after_step=follow)
        module.eval()
        for clustered, _ in nearest:
            parametrize.remove_parametrizations(clustered, "weight", leave_parametrized=True)
        job.measures["clusters"] = float(self.clusters)
        job.measures["index_bytes"] = float(sum(indexed_bytes(layer.weight.detach()) for layer, _ in nearest))
        job.measures["validation_accuracy"] = accuracy(module, job.data.validation)
        return module


class NearestCentroid(nn.Module):
    """Replaces each weight by the nearest centroid; gradients pass straight through to the weight."""

    def __init__(self, centroids: Tensor) -> None:
        super().__init__()
        self.centroids: Tensor
        self.register_buffer("centroids", centroids.sort().values)
        self.keeps_zero = bool((centroids == 0).any())

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight's values, float32 of its shape, each one of the centroids."""
        values = self.centroids[self.cluster_of(weight)]
        # Exactly a centroid once training is over; weight + (value - weight) is off by a rounding.
        return weight + (values - weight).detach() if self.training else values

    def cluster_of(self, weight: Tensor) -> Tensor:
        """Return the number of the nearest centroid, int64 of the weight's shape."""
        between = (self.centroids[1:] + self.centroids[:-1]) / 2
        return torch.bucketize(weight.detach(), between)

    @torch.no_grad()
    def move_to_means(self, weight: Tensor) -> None:
        """Move each centroid to the mean of its weights (one step of Lloyd's algorithm); one at zero stays there."""
        cluster = self.cluster_of(weight).flatten()
        counts = torch.bincount(cluster, minlength=len(self.centroids))
        sums = torch.zeros_like(self.centroids).index_add_(0, cluster, weight.detach().flatten())
        means = torch.where(counts > 0, sums / counts.clamp(min=1), self.centroids)
        if self.keeps_zero:
            means[self.centroids == 0] = 0.0
        self.centroids.copy_(means.sort().values)


def first_centroids(weight: Tensor, clusters: int) -> Tensor:
    """Return the centroids, float32 [clusters], of a layer's weights; [clusters + 1] with zero where some are zero."""
    values = weight.flatten().numpy()
    kept = values[values != 0]
    if not len(kept):
        return torch.zeros(1)
    centroids = torch.from_numpy(k_means(kept, clusters))
    return centroids if len(kept) == len(values) else torch.cat([centroids, torch.zeros(1)])


def indexed_bytes(weight: Tensor) -> int:
    """Return the bytes that a layer's weights take as indices of whole bits and a float32 table."""
    distinct = len(weight.unique())
    return math.ceil(weight.numel() * math.ceil(math.log2(max(2, distinct))) / 8) + 4 * distinct
