"""What one training step learns from, and what may be done to it first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Inputs, each [n, ...], and targets: labels int64 [n] or, where labels are mixed, shares float32 [n, k].

    `rows` int64 [n] are the numbers of the rows learnt from, while the inputs are theirs unchanged.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    rows: Tensor | None = None


class Augmentation(Protocol):
    """Changes a training batch at random, drawing from the generator alone. A frozen dataclass."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return a changed batch of the same shapes; the given tensors stay as they are."""
        ...


@dataclass(frozen=True, slots=True)
class Compose:
    """Augmentations one after another."""

    parts: tuple[Augmentation, ...]

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Apply all parts in turn."""
        for part in self.parts:
            batch = part(batch, generator)
        return batch
