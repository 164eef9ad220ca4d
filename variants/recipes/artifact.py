"""What a recipe makes: an ONNX file and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

EXPORT = "export"
"""The recipe of graphs that compute what the original computes, in the same precision."""


class RecipeError(Exception):
    """A recipe cannot be applied to this model. The message is one line."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """An ONNX file, the recipe that wrote it, and the steps that led to it, oldest first.

    `parameters` counts the weights of the network, whatever number format they are stored in. `facts` is what making
    it cost, where that is known: `training_s`, `labelled_rows`, `training_peak_rss_bytes`.
    """

    path: Path
    recipe: str
    lineage: tuple[str, ...]
    parameters: int
    facts: Mapping[str, float] = field(default_factory=dict)

    def next(self, path: Path, recipe: str, step: str) -> Artifact:
        """Return what one more step made of this artifact."""
        return replace(self, path=path, recipe=recipe, lineage=(*self.lineage, step))
