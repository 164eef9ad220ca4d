"""Low-rank factorization: a large matrix or kernel becomes the product of two thin ones, by its singular values.

Linear layers: truncated SVD. Convolutions: a kernel of k x k to `rank` channels, then 1 x 1 to the old ones, as in
Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and Detection", TPAMI 2016.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from variants.recipes.artifact import RecipeError
from variants.training.fit import fit
from variants.training.layers import faults_of_the_network, shared_weights, weight_layers
from variants.training.model import count_parameters, logits_of
from variants.training.recipe import Job, Recipe
from variants.training.settings import FitSettings

CANDIDATES = (0.75, 0.5, 0.25, 0.125)
"""Ranks that are tried of each layer, as shares of the rank at which factors are as large as what they replace."""

_READ = "with factors in place of layers the network does not run; its code must call layers, not read their weights"

Layer = nn.Linear | nn.Conv2d


@dataclass(frozen=True, slots=True)
class LowRank(Recipe):
    """Factorize the layers that get smaller by it, then train.

    `by` energy: each layer keeps the least rank that holds the share `energy` in (0, 1] of its squared singular
    values. `by` budget: ranks are chosen so that the network keeps the share `budget` in (0, 1) of its parameters,
    where that costs the least validation loss, measured layer by layer.
    """

    name: ClassVar[str] = "low rank"

    by: Literal["energy", "budget"] = "energy"
    energy: float = 0.9
    budget: float = 0.5
    fit: FitSettings = field(default_factory=lambda: FitSettings(epochs=5, rate=1e-3))

    def __post_init__(self) -> None:
        if not 0.0 < self.energy <= 1.0 or not 0.0 < self.budget < 1.0:
            raise ValueError(f"energy {self.energy:g} must lie in (0, 1], budget {self.budget:g} in (0, 1)")

    def apply(self, module: nn.Module, job: Job) -> nn.Module:
        """Factorize and train. Raises `RecipeError` where no layer gets smaller, or not as small as the budget."""
        before = count_parameters(module)
        # Weights that another layer has too would stay where they are, beside their factors.
        shared = shared_weights(module)
        layers = {
            path: layer
            for path, layer in weight_layers(module).items()
            if _can_split(layer) and id(layer.weight) not in shared
        }
        if self.by == "energy":
            ranks = {path: energy_rank(singular_values(layer), self.energy) for path, layer in layers.items()}
            ranks = {path: rank for path, rank in ranks.items() if saved_parameters(layers[path], rank) > 0}
        else:
            with faults_of_the_network(_READ):
                ranks = self._within_budget(module, job, layers, before)
        if not ranks:
            raise RecipeError("no layer gets smaller by factorization at this rank")
        for path, rank in ranks.items():
            module.set_submodule(path, factorized(layers[path], rank))
            job.measures[f"rank.{path}"] = float(rank)
        with faults_of_the_network(_READ):
            module(*job.example.values())
        job.measures["parameters_kept"] = count_parameters(module) / before
        fit(module, job, self.fit)
        return module

    def _within_budget(self, module: nn.Module, job: Job, layers: Mapping[str, Layer], before: int) -> dict[str, int]:
        loss = _validation_loss(module, job)
        options: dict[str, list[tuple[int, float]]] = {}
        for path, layer in layers.items():
            tried: dict[int, float] = {}
            for share in CANDIDATES:
                rank = max(1, int(share * even_rank(layer)))
                if saved_parameters(layer, rank) > 0 and rank not in tried:
                    module.set_submodule(path, factorized(layer, rank))
                    tried[rank] = _validation_loss(module, job) - loss
                    module.set_submodule(path, layer)
            options[path] = [(saved_parameters(layer, rank), rise) for rank, rise in tried.items()]
            options[path] = sorted(options[path])
        chosen = cheapest_savings(options, before - int(self.budget * before))
        if chosen is None:
            raise RecipeError(f"the lowest ranks keep more than {self.budget:.0%} of the parameters")
        return {path: rank_that_saves(layers[path], saved) for path, saved in chosen.items()}


def cheapest_savings(options: Mapping[str, list[tuple[int, float]]], wanted: int) -> dict[str, int] | None:
    """Choose one (saving, rise in loss) of each layer's ascending `options`, or none, to save `wanted` in all.

    Greedy: the next step down is the one that raises the loss least for each parameter it saves; rises are taken to
    add up. Returns the saving by layer, None where all options together save less than wanted.
    """
    chosen: dict[str, int] = {}
    left = wanted
    rises = dict.fromkeys(options, 0.0)
    while left > 0:
        steps = [
            ((rise - rises[path]) / (saving - chosen.get(path, 0)), path, saving, rise)
            for path, choices in options.items()
            for saving, rise in choices
            if saving > chosen.get(path, 0)
        ]
        if not steps:
            return None
        _, path, saving, rise = min(steps)
        left -= saving - chosen.get(path, 0)
        chosen[path], rises[path] = saving, rise
    return chosen


def singular_values(layer: Layer) -> Tensor:
    """Return the singular values, descending, of the layer's weights as a matrix [outputs, inputs]."""
    values: Tensor = torch.linalg.svdvals(layer.weight.detach().flatten(1))
    return values


def energy_rank(values: Tensor, energy: float) -> int:
    """Return the least rank, 1 or more, whose squared singular values make up the share `energy` of all."""
    squares = values.double().square().cumsum(0)
    return min(len(values), 1 + int((squares < energy * squares[-1] * (1.0 - 1e-12)).sum()))


def even_rank(layer: Layer) -> float:
    """Return the rank at which the factors have as many weights as the layer; it is no whole number."""
    outputs, inputs = layer.weight.flatten(1).shape
    return outputs * inputs / (outputs + inputs)


def saved_parameters(layer: Layer, rank: int) -> int:
    """Return how many weights fewer the factors have; below 0 where they have more."""
    outputs, inputs = layer.weight.flatten(1).shape
    return outputs * inputs - rank * (outputs + inputs)


def rank_that_saves(layer: Layer, saved: int) -> int:
    """Return the rank at which `saved_parameters` is `saved`."""
    outputs, inputs = layer.weight.flatten(1).shape
    return (outputs * inputs - saved) // (outputs + inputs)


def factorized(layer: Layer, rank: int) -> nn.Sequential:
    """Return the best approximation of the layer by two of the given rank; its bias is the second one's."""
    left, values, right = torch.linalg.svd(layer.weight.detach().flatten(1), full_matrices=False)
    root = values[:rank].sqrt()
    narrow, widen = root[:, None] * right[:rank], left[:, :rank] * root
    has_bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        first: Layer = nn.Linear(layer.in_features, rank, bias=False)
        second: Layer = nn.Linear(rank, layer.out_features, bias=has_bias)
    else:
        # All settings of the layer itself, but for what comes out.
        first = copy.deepcopy(layer)
        first.out_channels, first.bias = rank, None
        first.weight = nn.Parameter(torch.empty(rank, *layer.weight.shape[1:]))
        second = nn.Conv2d(rank, layer.out_channels, 1, bias=has_bias)
    with torch.no_grad():
        first.weight.copy_(narrow.view_as(first.weight))
        second.weight.copy_(widen.view_as(second.weight))
        if layer.bias is not None and second.bias is not None:
            second.bias.copy_(layer.bias)
    return nn.Sequential(first, second)


def _can_split(layer: Layer) -> bool:
    return isinstance(layer, nn.Linear) or layer.groups == 1


def _validation_loss(module: nn.Module, job: Job) -> float:
    return float(nn.functional.cross_entropy(logits_of(module, job.data.validation), job.data.validation.labels))
