"""Weights stored in 16 bits, fp16 or bf16; the graph casts them back and computes in float32.

The file is half as long, and that is all: onnxruntime casts the constants once, when it opens the model, so time and
memory are those of fp32. Its CPU kernels compute in float32 anyway, and a graph whose activations are fp16, too, is no
faster (see docs/log.md). fp16 keeps 11 bits of a weight in the range of 6e-8 to 65504, bf16 keeps 8 bits in the
range of float32.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from variants.recipes.artifact import Artifact, RecipeError
from variants.recipes.matrices import MINIMUM_WEIGHTS, constant, load_with_initializers, replace_nodes


class Half(StrEnum):
    """A floating-point format of 16 bits."""

    FP16 = "fp16"
    BF16 = "bf16"


_DTYPES: dict[Half, Any] = {Half.FP16: np.float16, Half.BF16: ml_dtypes.bfloat16}


def half_weights(
    source: Artifact, path: Path, precision: Half = Half.FP16, *, minimum_weights: int = MINIMUM_WEIGHTS
) -> Artifact:
    """Write `source` with its float32 constants of at least `minimum_weights` elements in 16 bits each.

    Constants that the format would turn into infinity stay float32. The recipe is called as the format. Raises
    `RecipeError` where no constant is left to store so.
    """
    model = load_with_initializers(source.path)
    halves, casts = [], []
    for tensor in model.graph.initializer:
        stored = _stored(tensor, precision, minimum_weights)
        if stored is None:
            continue
        halves.append(constant(stored, f"{tensor.name}_{precision}"))
        casts.append(helper.make_node("Cast", [halves[-1].name], [f"{tensor.name}_float"], to=onnx.TensorProto.FLOAT))
    if not casts:
        raise RecipeError(f"no constant with at least {minimum_weights} weights that fit {precision}")
    names = {half.name.removesuffix(f"_{precision}"): cast.output[0] for half, cast in zip(halves, casts, strict=True)}
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    replace_nodes(model, [*casts, *model.graph.node], halves)
    onnx.save(model, path)
    return source.next(path, precision, f"weights in {precision}")


def _stored(tensor: onnx.TensorProto, precision: Half, minimum_weights: int) -> NDArray[Any] | None:
    if tensor.data_type != onnx.TensorProto.FLOAT:
        return None
    values = numpy_helper.to_array(tensor)
    if values.size < minimum_weights:
        return None
    with np.errstate(over="ignore"):
        stored: NDArray[Any] = values.astype(_DTYPES[precision])
    return stored if np.isfinite(stored.astype(np.float32)).all() else None
