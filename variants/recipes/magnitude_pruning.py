"""Unstructured pruning: the smallest weights become zero while the rest learns on.

The share of zeros rises along the cubic schedule of Zhu and Gupta, "To Prune, or Not to Prune", 2017. Zeros stay zero
in later steps. They make files smaller once compressed; onnxruntime's kernels are dense and run no faster for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from variants.training.fit import fit
from variants.training.layers import weight_layers
from variants.training.recipe import Job, Recipe
from variants.training.settings import FitSettings

STEPS_BETWEEN = 10
"""Which weights are the smallest is found out anew after so many steps."""


def cubic_sparsity(done: float, *, begin: float, end: float, start: float, final: float) -> float:
    """Return the share of zeros when the share `done` of training is behind: `start` at `begin`, `final` from `end`."""
    left = 1.0 - min(1.0, max(0.0, (done - begin) / (end - begin)))
    return final + (start - final) * left**3


@dataclass(frozen=True, slots=True)
class MagnitudePruning(Recipe):
    """Set the share `sparsity` in (0, 1) of the weights of linear and convolutional layers to zero.

    They are the smallest of the network (`scope` network) or of each layer. Sparsity rises between the shares `begin`
    and `end` of training; the rest of it recovers accuracy. Without epochs it is one cut. The fit's `patience` is not
    heeded: the best epoch would be an early one with fewer zeros.
    """

    name: ClassVar[str] = "magnitude pruning"

    sparsity: float = 0.8
    fit: FitSettings = field(default_factory=lambda: FitSettings(epochs=5, rate=1e-3))
    scope: Literal["network", "layer"] = "network"
    begin: float = 0.0
    end: float = 0.7

    def __post_init__(self) -> None:
        if not 0.0 < self.sparsity < 1.0 or not 0.0 <= self.begin < self.end <= 1.0:
            raise ValueError(
                f"sparsity {self.sparsity:g} must lie in (0, 1), and 0 <= begin {self.begin:g} < end {self.end:g} <= 1"
            )

    def apply(self, module: nn.Module, job: Job) -> nn.Module:
        """Prune while training."""
        weights = [layer.weight for layer in weight_layers(module).values()]
        pruner = _Pruner(weights, self.scope)
        start = pruner.share_of_zeros()
        steps = 0

        def prune(done: float) -> None:
            nonlocal steps
            # First the zeros so far: the optimizer has just moved them, and may have made them larger than others.
            pruner.zero()
            if steps % STEPS_BETWEEN == 0 or done >= self.end:
                pruner.choose(cubic_sparsity(done, begin=self.begin, end=self.end, start=start, final=self.sparsity))
            pruner.zero()
            steps += 1

        fit(module, job, replace(self.fit, patience=None), after_step=prune)
        if not self.fit.epochs:
            pruner.choose(self.sparsity)
            pruner.zero()
        job.measures["sparsity"] = pruner.share_of_zeros()
        return module


class _Pruner:
    """Which weights are kept. What was chosen to be zero is chosen again: zeros are the smallest."""

    def __init__(self, weights: Sequence[Tensor], scope: Literal["network", "layer"]) -> None:
        self._groups = [list(weights)] if scope == "network" else [[weight] for weight in weights]
        self._kept: list[tuple[Tensor, Tensor]] = []

    def share_of_zeros(self) -> float:
        weights = [weight for group in self._groups for weight in group]
        return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)

    @torch.no_grad()
    def choose(self, sparsity: float) -> None:
        self._kept = []
        for group in self._groups:
            sizes = torch.cat([weight.abs().flatten() for weight in group])
            zeros = round(sparsity * sizes.numel())
            kept = torch.ones_like(sizes)
            kept[sizes.topk(zeros, largest=False).indices] = 0.0
            parts = kept.split([weight.numel() for weight in group])
            self._kept += [(weight, part.view_as(weight)) for weight, part in zip(group, parts, strict=True)]

    @torch.no_grad()
    def zero(self) -> None:
        for weight, kept in self._kept:
            weight.mul_(kept)
