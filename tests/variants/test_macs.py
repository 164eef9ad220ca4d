"""MACs are counted from the shapes that tensors really have, whatever operators the graph uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.variants.conftest import save_linear_model
from variants.macs import count_macs
from variants.recipes.artifact import Artifact
from variants.recipes.codebook import clustered
from variants.recipes.dynamic_int8 import dynamic_int8
from variants.recipes.rowwise_int8 import rowwise_int8
from variants.recipes.static_int8 import static_int8
from variants.recipes.weight_only import weight_only


def save(path: Path, nodes: list[onnx.NodeProto], shape: list[int | str], **constants: NDArray[Any]) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def zeros(*shape: int) -> NDArray[np.float32]:
    return np.zeros(shape, np.float32)


CASES: dict[str, tuple[list[onnx.NodeProto], tuple[int, ...], dict[str, NDArray[Any]], int]] = {
    "a product": ([helper.make_node("MatMul", ["x", "w"], ["logits"])], (2, 5), {"w": zeros(5, 3)}, 2 * 5 * 3),
    "a transposed product": (
        [helper.make_node("Gemm", ["x", "w"], ["logits"], transA=1, transB=1)],
        (5, 2),
        {"w": zeros(3, 5)},
        2 * 5 * 3,
    ),
    "a convolution in two groups, stride 2": (
        [helper.make_node("Conv", ["x", "w"], ["logits"], group=2, strides=[2, 2])],
        (1, 4, 9, 9),
        {"w": zeros(6, 2, 3, 3)},
        6 * 4 * 4 * 2 * 9,
    ),
    "a convolution turned round": (
        [helper.make_node("ConvTranspose", ["x", "w"], ["logits"])],
        (1, 4, 5, 5),
        {"w": zeros(4, 6, 3, 3)},
        4 * 25 * 6 * 9,
    ),
    "attention in one operator": (
        [helper.make_node("Attention", ["x", "w", "b"], ["logits"], num_heads=2, domain="com.microsoft")],
        (1, 7, 8),
        {"w": zeros(8, 24), "b": zeros(24)},
        7 * 8 * 24 + 2 * 7 * 7 * 8,
    ),
    "attention of given queries, keys and values": (
        [helper.make_node("MultiHeadAttention", ["x", "x", "x"], ["logits"], num_heads=2, domain="com.microsoft")],
        (1, 7, 8),
        {},
        2 * 7 * 7 * 8,
    ),
    "shapes that only show when it runs": (
        [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Reshape", ["x", "turned"], ["y"]),
            helper.make_node("MatMul", ["y", "w"], ["logits"]),
        ],
        (6, 5),
        {"turned": np.array([2, -1]), "w": zeros(15, 3)},
        2 * 15 * 3,
    ),
    "nothing but sums": ([helper.make_node("Add", ["x", "x"], ["logits"])], (2, 5), {}, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_counts_worked_out_by_hand(case: str, tmp_path: Path) -> None:
    """Products, convolutions and attention are counted as their definitions say."""
    nodes, shape, constants, expected = CASES[case]
    path = save(tmp_path / "model.onnx", nodes, [f"d{axis}" for axis in range(len(shape))], **constants)
    assert expected == count_macs(path, {"x": zeros(*shape)})


def test_compressed_forms_count_as_much_as_their_source(tmp_path: Path) -> None:
    """Quantization, blocks of four bits and codebooks change what is multiplied, not how often."""
    weights = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    source = Artifact(save_linear_model(tmp_path / "fp32.onnx", weights), "export", (), 2048)
    feeds = {"x": np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)}
    made = [
        source,
        dynamic_int8(source, tmp_path / "dynamic.onnx"),
        rowwise_int8(source, tmp_path / "rowwise.onnx"),
        static_int8(source, tmp_path / "static.onnx", [feeds]),
        weight_only(source, tmp_path / "blocks.onnx", bits=4),
        clustered(source, tmp_path / "codebook.onnx"),
    ]
    assert "MatMulNBits" in {node.op_type for node in onnx.load(made[4].path).graph.node}
    assert [3 * 64 * 32] * 6 == [count_macs(artifact.path, feeds) for artifact in made]


def test_what_cannot_be_counted_has_no_count(tmp_path: Path) -> None:
    """A graph with an operator whose products nobody counts has none, rather than too few."""
    nodes = [helper.make_node("Einsum", ["x", "w"], ["logits"], equation="ij,jk->ik")]
    assert None is count_macs(save(tmp_path / "model.onnx", nodes, ["n", 5], w=zeros(5, 3)), {"x": zeros(2, 5)})


def test_a_graph_that_does_not_run_has_no_count(tmp_path: Path) -> None:
    """A count is not worth a build: rows that the graph does not take are no fault here."""
    path = save_linear_model(tmp_path / "model.onnx", zeros(5, 3))
    assert None is count_macs(path, {"x": zeros(2, 4)})
