"""One network of a ladder: an architecture by name, with the training that it gets."""

from __future__ import annotations

from dataclasses import dataclass

from variants.architectures.image import ImageArchitecture
from variants.recipes.supervised import Supervised


@dataclass(frozen=True, slots=True)
class Rung:
    """One network of a ladder and how it is trained.

    `expected_s` are the seconds that takes on one core; with `int8` it is also made in eight bits.
    """

    name: str
    architecture: ImageArchitecture
    recipe: Supervised
    expected_s: float
    int8: bool = False
