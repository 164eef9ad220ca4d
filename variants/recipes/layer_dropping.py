"""Fewer layers: whole blocks of a stack are left out, and the rest learns to do without them.

Fan et al., "Reducing Transformer Depth on Demand with Structured Dropout", ICLR 2020; for pretrained encoders, Sajjad
et al., "On the Effect of Dropping Layers of Pre-trained Transformer Models", 2023.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import nn

from variants.recipes.artifact import RecipeError
from variants.training.fit import fit
from variants.training.layers import faults_of_the_network, part
from variants.training.model import logits_of
from variants.training.recipe import Job, Recipe
from variants.training.settings import FitSettings


@dataclass(frozen=True, slots=True)
class LayerDropping(Recipe):
    """Keep `keep` layers of the `nn.ModuleList` or `nn.Sequential` at the path `stack`, which all have the same shapes.

    `which` says which ones go: the last, every other (evenly spread, first and last kept where possible), or the least
    sensitive: those without which the validation loss is lowest, one after another.
    """

    name: ClassVar[str] = "layer dropping"

    stack: str
    keep: int
    which: Literal["last", "spread", "insensitive"] = "spread"
    fit: FitSettings = field(default_factory=lambda: FitSettings(epochs=3, rate=1e-3))

    def apply(self, module: nn.Module, job: Job) -> nn.Module:
        """Drop the layers, then train."""
        layers = part(module, self.stack)
        if not isinstance(layers, (nn.ModuleList, nn.Sequential)):
            raise RecipeError(f"{self.stack!r} is a {type(layers).__name__}, not a ModuleList or a Sequential")
        count = len(layers)
        if not 1 <= self.keep < count:
            raise RecipeError(f"{self.stack!r} has {count} layers: keep 1 to {count - 1} of them, not {self.keep}")
        kept = self._kept(module, job, count)
        _retain(module, self.stack, kept)
        job.measures["layers"] = float(len(kept))
        with faults_of_the_network(f"without some layers of {self.stack!r} the network does not run"):
            module(*job.example.values())
        fit(module, job, self.fit)
        return module

    def _kept(self, module: nn.Module, job: Job, count: int) -> list[int]:
        if self.which == "last":
            return list(range(self.keep))
        if self.which == "spread":
            places = torch.linspace(0, count - 1, self.keep) if self.keep > 1 else torch.zeros(1)
            return [int(place) for place in places.round().tolist()]
        kept = list(range(count))
        while len(kept) > self.keep:
            losses = {layer: self._loss(module, job, [other for other in kept if other != layer]) for layer in kept}
            kept.remove(min(losses, key=losses.__getitem__))
        return kept

    def _loss(self, module: nn.Module, job: Job, kept: list[int]) -> float:
        whole = part(module, self.stack)
        _retain(module, self.stack, kept)
        try:
            logits = logits_of(module, job.data.validation)
        finally:
            module.set_submodule(self.stack, whole)
        return float(nn.functional.cross_entropy(logits, job.data.validation.labels))


def _retain(module: nn.Module, path: str, kept: list[int]) -> None:
    """Put a shorter stack of the same kind, of the same layers, in the place of the one at `path`."""
    stack = part(module, path)
    layers = list(stack.children())
    chosen = [layers[layer] for layer in kept]
    shorter: nn.Module = nn.Sequential(*chosen) if isinstance(stack, nn.Sequential) else nn.ModuleList(chosen)
    module.set_submodule(path, shorter)
