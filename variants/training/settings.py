"""How to train: the settings of a fit, and the optimizer and learning rates that they stand for.

The one-cycle schedule is that of Smith and Topin, "Super-Convergence", 2018, in the form of linear warm-up and cosine
fall; plain cosine that of Loshchilov and Hutter, "SGDR", ICLR 2017; AdamW theirs of ICLR 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from variants.training.batch import Augmentation

FLOOR_OF_RATE = 1e-3
"""Share of the largest rate with which one-cycle ends."""


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How to train.

    `rate` is the largest learning rate. `one-cycle` rises to it over the share `warm_up` of all steps, then falls to
    almost 0; `cosine` starts with it. Weight decay spares biases and norms. `bfloat16` runs the forward pass under
    autocast: quicker where `computes_in_bfloat16`. With `patience`, training ends after so many epochs without a better
    validation accuracy, and the best epoch's weights are kept; without, the last epoch's. Raises `ValueError` for
    numbers that nothing can be trained with.
    """

    epochs: int = 10
    batch: int = 64
    rate: float = 3e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    warm_up: float = 0.1
    weight_decay: float = 0.05
    momentum: float = 0.9
    label_smoothing: float = 0.0
    clip_norm: float | None = 1.0
    bfloat16: bool = False
    patience: int | None = None
    augmentation: Augmentation | None = None

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch < 1 or self.rate <= 0.0:
            raise ValueError(
                f"epochs {self.epochs}, batch {self.batch}, rate {self.rate:g}: not from 0, from 1, and above 0"
            )
        if not 0.0 <= self.warm_up < 1.0 or not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"warm_up {self.warm_up:g} and label_smoothing {self.label_smoothing:g} lie in [0, 1)")

    def optimizer_for(self, module: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of the module's weights that want a gradient."""
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        groups = [
            {"params": [weight for weight in weights if weight.dim() > 1], "weight_decay": self.weight_decay},
            {"params": [weight for weight in weights if weight.dim() <= 1], "weight_decay": 0.0},
        ]
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=self.rate, momentum=self.momentum, nesterov=self.momentum > 0.0)
        return torch.optim.AdamW(groups, lr=self.rate)

    def share_of_rate(self, done: float) -> float:
        """Return the learning rate as a share of `rate`, in (0, 1], when the share `done` of the steps is behind."""
        if self.schedule == "constant":
            return 1.0
        rising = self.warm_up if self.schedule == "one-cycle" else 0.0
        if done < rising:
            return max(FLOOR_OF_RATE, done / rising)
        fallen = min(1.0, (done - rising) / (1.0 - rising))
        return max(FLOOR_OF_RATE, (1.0 + math.cos(math.pi * fallen)) / 2.0)


def computes_in_bfloat16() -> bool:
    """Say whether this processor multiplies bfloat16 matrices; where it only emulates that, float32 is faster."""
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
