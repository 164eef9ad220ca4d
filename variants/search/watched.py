"""Training that is looked at after every epoch, so that a hopeless one can be ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from variants.training.fit import fit
from variants.training.model import accuracy
from variants.training.recipe import Job, Recipe
from variants.training.settings import FitSettings

Watch = Callable[[int, float], None]
"""Told how many epochs are done and the validation accuracy then, a fraction; ends the training by raising."""


@dataclass(frozen=True, slots=True)
class WatchedTraining(Recipe):
    """Fit the module to the labels by cross-entropy; `watch` is told of every epoch but the last."""

    name: ClassVar[str] = "watched training"

    watch: Watch
    fit: FitSettings = field(default_factory=FitSettings)

    def apply(self, module: nn.Module, job: Job) -> nn.Module:
        """Train in place."""
        seen = 0

        def look(done: float) -> None:
            nonlocal seen
            # A hair more, for the share of steps done is a rounded fraction.
            epochs = int(done * self.fit.epochs + 1e-9)
            if seen < epochs < self.fit.epochs:
                seen = epochs
                self.watch(epochs, accuracy(module, job.data.validation))

        fit(module, job, self.fit, after_step=look)
        return module
