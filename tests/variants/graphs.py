"""Tiny ONNX graphs by hand for the tests of recipes and of the import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from variants.recipes.artifact import Artifact
from variants.session import open_session


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def save_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, NDArray[Any]],
    *,
    x: Sequence[Any] = ("n", 32),
    x_type: int = TensorProto.FLOAT,
    outputs: Mapping[str, Sequence[Any]] | None = None,
    opset: int = 17,
) -> Artifact:
    """Write a graph with the one input `x`; `outputs` are names and shapes, `logits` [n, 4] unless given."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", x_type, list(x))],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
            for name, shape in (outputs or {"logits": ("n", 4)}).items()
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    ir_version = 10 if opset > 17 else 8
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version), path)
    return Artifact(path, "export", ("by hand",), sum(value.size for value in constants.values()))


def save_mlp(path: Path, *, opset: int = 17, last: str = "", x_type: int = TensorProto.FLOAT) -> Artifact:
    """Write x [n, 32] -> 64 -> `logits` [n, 4]; `last` names an operator that makes the output `answer` of them."""
    constants: dict[str, NDArray[Any]] = {
        "w": normal(32, 64) / 6,
        "b": normal(64, seed=1),
        "head": normal(64, 4, seed=2) / 8,
    }
    start = "x"
    nodes = []
    if x_type != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", ["x"], ["as_float"], to=TensorProto.FLOAT))
        start = "as_float"
    nodes += [
        helper.make_node("Gemm", [start, "w", "b"], ["wide"]),
        helper.make_node("Relu", ["wide"], ["state"]),
        helper.make_node("MatMul", ["state", "head"], ["logits"]),
    ]
    if last:
        nodes.append(helper.make_node(last, ["logits"], ["answer"]))
    outputs = {"answer" if last else "logits": ("n", 4)}
    return save_graph(path, nodes, constants, x_type=x_type, outputs=outputs, opset=opset)


def save_cnn(path: Path) -> Artifact:
    """Write x [n, 1, 8, 8] -> two convolutions of 16 channels -> `logits` [n, 4]."""
    constants: dict[str, NDArray[Any]] = {
        "k0": normal(16, 1, 3, 3) / 3,
        "c0": normal(16, seed=1),
        "k1": normal(16, 16, 3, 3, seed=2) / 12,
        "c1": normal(16, seed=3),
        "head": normal(16, 4, seed=4) / 4,
    }
    nodes = [
        helper.make_node("Conv", ["x", "k0", "c0"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "k1", "c1"], ["d"], pads=[1] * 4),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("GlobalAveragePool", ["e"], ["f"]),
        helper.make_node("Flatten", ["f"], ["g"]),
        helper.make_node("MatMul", ["g", "head"], ["logits"]),
    ]
    return save_graph(path, nodes, constants, x=("n", 1, 8, 8))


def operators(artifact: Artifact) -> list[str]:
    return [node.op_type for node in onnx.load(artifact.path).graph.node]


def logits(artifact: Artifact, x: NDArray[Any]) -> NDArray[np.float32]:
    return open_session(artifact.path).run({"x": x})["logits"]


def save_samples(folder: Path, **arrays: Any) -> Path:
    """Write the rows that a model is imported with."""
    np.savez(folder / "samples.npz", **arrays)
    return folder / "samples.npz"
