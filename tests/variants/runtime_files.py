"""A linear model as the files of runtimes, and rows for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.tflite import save_tflite
from variants.porting.program import write_program

COLUMNS, LABELS = 8, 3
WEIGHTS = np.random.default_rng(0).standard_normal((COLUMNS, LABELS)).astype(np.float32)


def save_onnx(path: Path, weights: NDArray[np.float32] = WEIGHTS) -> Path:
    columns, labels = weights.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["logits"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", columns])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", labels])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def save_for(runtime: str, folder: Path, weights: NDArray[np.float32] = WEIGHTS) -> Path:
    """The linear model as a file of that runtime."""
    source = save_onnx(folder / "model.onnx", weights)
    if runtime == "torch":
        write_program(source, folder / "model.pt2", {"x": np.ones((3, len(weights)), np.float32)}, 1)
        return folder / "model.pt2"
    if runtime == "litert":
        return save_tflite(folder / "model.tflite", np.ascontiguousarray(weights.T), (1, 4))
    return source


def inputs(rows: int) -> NDArray[np.float32]:
    return np.random.default_rng(rows).standard_normal((rows, COLUMNS)).astype(np.float32)
