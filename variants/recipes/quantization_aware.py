"""Quantization-aware training: the network learns to be right in int8.

Krishnamoorthi, "Quantizing Deep Convolutional Networks for Efficient Inference", 2018: batch normalization folded,
weights with one scale per output, activations with one per tensor, ranges fixed for the last part of training.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from torch import nn

from variants.recipes.artifact import RecipeError
from variants.training.fake_quantization import RoundedLayer, fix_ranges, learn_ranges, roundings, settle
from variants.training.fit import fit
from variants.training.model import accuracy
from variants.training.recipe import Job, Recipe
from variants.training.rounding_points import rounded
from variants.training.settings import FitSettings


@dataclass(frozen=True, slots=True)
class QuantizationAware(Recipe):
    """Round weights and activations to 8 bits while training; the export is int8.

    Ranges of activations start from `warm_up_batches` and follow training for its first share `observing`; after that
    only weights change. Weights of 7 bits, in int8, are exact on every processor; 8 need VNNI. It is the last recipe
    that trains. Without epochs it is calibration alone.
    """

    name: ClassVar[str] = "quantization-aware training"

    fit: FitSettings = field(default_factory=lambda: FitSettings(epochs=2, rate=3e-4))
    observing: float = 0.5
    warm_up_batches: int = 8
    weight_bits: Literal[7, 8] = 7

    def __post_init__(self) -> None:
        if not 0.0 <= self.observing <= 1.0 or self.warm_up_batches < 1:
            raise ValueError(f"observing {self.observing:g} must lie in [0, 1], warm_up_batches be 1 or more")

    def apply(self, module: nn.Module, job: Job) -> nn.Module:
        """Put the roundings in place, learn their ranges, train, and fix them."""
        if roundings(module):
            raise RecipeError("the network is quantized already: quantization-aware training comes once, and last")
        module = rounded(module, self.weight_bits)
        learn_ranges(module, job.data.train.take(slice(0, self.warm_up_batches * self.fit.batch)), self.fit.batch)

        def fix(done: float) -> None:
            if done >= self.observing:
                fix_ranges(module)

        # Under autocast activations would be bfloat16 before they are rounded: twice.
        fit(module, job, replace(self.fit, bfloat16=False), after_step=fix)
        settle(module)
        job.measures["validation_accuracy"] = accuracy(module, job.data.validation)
        job.measures["rounded_layers"] = float(sum(isinstance(part, RoundedLayer) for part in module.modules()))
        return module
