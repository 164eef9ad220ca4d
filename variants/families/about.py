"""What a family is told apart from how it comes about: its name, its labels, and what users read of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NotRequired, TypedDict

from variants.spec import BuildStage


class About(TypedDict):
    """The fields of `FamilySpec` that a way of building leaves to each family that is built so."""

    name: str
    description: str
    labels: tuple[str, ...]
    default_slo_s: float
    expected_s: NotRequired[Mapping[BuildStage, float]]
    source: NotRequired[str]
    licence: NotRequired[str]
