"""Graph slimming: constants folded, dead and repeated nodes removed, neighbours fused, by onnxslim.

What is computed stays the same, so parity with the original is checked as for an export. onnxruntime does most of this
again when it opens a model, so answers do not come faster; but weights that an exporter hid behind a `Transpose` or an
`Identity` are seen by the recipes that follow.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxslim

from variants.recipes.artifact import Artifact, RecipeError
from variants.recipes.quiet import quiet


def slim(source: Artifact, path: Path) -> Artifact:
    """Write `source` with fewer nodes. Raises `RecipeError` where onnxslim cannot read the graph."""
    model = onnx.load(source.path)
    with quiet():
        try:
            slimmed = onnxslim.slim(model)
        except Exception as error:  # whatever its passes raise on a graph that they do not expect
            raise RecipeError(f"onnxslim fails: {type(error).__name__}: {error}") from error
    if slimmed is None:
        raise RecipeError("onnxslim returns nothing")
    onnx.save(slimmed, path)
    return source.next(path, source.recipe, "slimmed")
