"""Plain training on labelled rows: the first step of a model, or fine-tuning after another step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from variants.training.fit import fit
from variants.training.recipe import Job, Recipe
from variants.training.settings import FitSettings


@dataclass(frozen=True, slots=True)
class Supervised(Recipe):
    """Fit the module to the labels by cross-entropy."""

    name: ClassVar[str] = "training"

    fit: FitSettings = field(default_factory=FitSettings)

    def apply(self, module: nn.Module, job: Job) -> nn.Module:
        """Train in place."""
        fit(module, job, self.fit)
        return module
