from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from variants.recipes.artifact import Artifact, RecipeError
from variants.recipes.cut import cut
from variants.recipes.dynamic_int8 import dynamic_int8
from variants.recipes.export import export
from variants.recipes.rowwise_int8 import rowwise_int8
from variants.recipes.static_int8 import static_int8
from variants.session import open_session

RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> NDArray[np.float32]:
    return RANDOM.standard_normal(shape).astype(np.float32)


@pytest.fixture
def network(tmp_path: Path) -> Artifact:
    """A graph with all that the row-wise rewrite handles: Gather, MatMul (two of one input), Gemm, and a small head."""
    constants: dict[str, NDArray[Any]] = {
        "table": normal(50, 32),
        "left": normal(32, 64) / 6,
        "right": normal(32, 64) / 6,
        "gemm": normal(48, 64) / 8,
        "bias": normal(48),
        "head": normal(48, 3) / 7,
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"]),
        helper.make_node("MatMul", ["embedded", "left"], ["a"]),
        helper.make_node("MatMul", ["embedded", "right"], ["b"]),
        helper.make_node("Mul", ["a", "b"], ["mixed"]),
        helper.make_node("Gemm", ["mixed", "gemm", "bias"], ["widened"], transB=1),
        helper.make_node("Relu", ["widened"], ["state"]),
        helper.make_node("MatMul", ["state", "head"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, ["n", 48]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "network.onnx")
    return Artifact(tmp_path / "network.onnx", "export", ("by hand",), sum(value.size for value in constants.values()))


def logits(artifact: Artifact, feeds: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    return open_session(artifact.path).run(feeds)["logits"]


def test_rowwise_is_close_to_the_original(network: Artifact, tmp_path: Path) -> None:
    """The rewritten graph is valid and its logits are those of the original up to quantization noise."""
    made = rowwise_int8(network, tmp_path / "int8.onnx")
    onnx.checker.check_model(onnx.load(made.path))
    feeds = {"ids": np.arange(50)}
    expected = logits(network, feeds)
    assert np.abs(logits(made, feeds) - expected).max() < 0.05 * np.abs(expected).max()


def test_rowwise_rewrites_all_but_the_small_head(network: Artifact, tmp_path: Path) -> None:
    """Large constant matrices become int8 (two thirds smaller file), the head of 144 weights stays fp32."""
    made = rowwise_int8(network, tmp_path / "int8.onnx")
    graph = onnx.load(made.path).graph
    operators = [node.op_type for node in graph.node]
    floats = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    assert (3, 1, 2) == tuple(map(operators.count, ("MatMulIntegerToFloat", "MatMul", "QuantizeLinear")))
    assert {"head", "bias"} == floats & {"table", "left", "right", "gemm", "head", "bias"}
    assert made.path.stat().st_size < 0.6 * network.path.stat().st_size


def test_rowwise_answers_do_not_depend_on_the_batch(network: Artifact, tmp_path: Path) -> None:
    """A row alone and among 49 others gets the same logits, unlike under dynamic quantization."""
    whole, alone = {"ids": np.arange(50)}, [{"ids": np.array([row])} for row in range(50)]
    largest = {}
    for recipe in (rowwise_int8, dynamic_int8):
        made = recipe(network, tmp_path / f"{recipe.__name__}.onnx")
        session = open_session(made.path)
        together = session.run(whole)["logits"]
        largest[recipe] = np.abs(together - np.concatenate([session.run(row)["logits"] for row in alone])).max()
    assert largest[rowwise_int8] < 1e-5
    assert largest[dynamic_int8] > 1e-3


def test_rowwise_survives_rows_of_zeros(tmp_path: Path) -> None:
    """A row without any signal gives zero, not a division by zero."""
    module = torch.nn.Linear(64, 32, bias=False)
    source = export(module, {"x": torch.zeros(2, 64)}, tmp_path / "linear.onnx", lineage=("linear",))
    made = rowwise_int8(source, tmp_path / "int8.onnx")
    assert np.array_equal(np.zeros((1, 32)), logits(made, {"x": np.zeros((1, 64), np.float32)}))


def test_rowwise_refuses_a_graph_without_matrices(tmp_path: Path) -> None:
    """Where there is nothing to quantize the recipe says so instead of making a copy."""
    source = export(torch.nn.Linear(4, 3), {"x": torch.zeros(2, 4)}, tmp_path / "small.onnx", lineage=("small",))
    with pytest.raises(RecipeError, match="at least 1024 constant weights"):
        rowwise_int8(source, tmp_path / "int8.onnx")


def test_export_gives_what_torch_gives(tmp_path: Path) -> None:
    """An exported module answers batches of any size as the module does, and counts its weights."""
    module = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 3))
    made = export(module, {"x": torch.zeros(2, 8)}, tmp_path / "model.onnx", lineage=("module",))
    values = normal(7, 8)
    with torch.inference_mode():
        expected = module(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(logits(made, {"x": values}), expected, atol=1e-6)
    assert 8 * 16 + 16 + 16 * 3 + 3 == made.parameters


def test_static_int8_is_close_and_independent_of_the_batch(tmp_path: Path) -> None:
    """Static quantization of a convolution keeps its answers, and they are the same alone and in a batch."""
    module = torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, 8, 8)), torch.nn.Conv2d(1, 16, 3), torch.nn.ReLU(), torch.nn.Flatten()
    )
    module.append(torch.nn.Linear(16 * 36, 3))
    source = export(module, {"x": torch.zeros(2, 64)}, tmp_path / "conv.onnx", lineage=("conv",))
    batches = [{"x": normal(16, 64)} for _ in range(4)]
    made = static_int8(source, tmp_path / "int8.onnx", batches, operators=("Conv", "Gemm"))
    expected = logits(source, batches[0])
    together = logits(made, batches[0])
    alone = np.concatenate([logits(made, {"x": batches[0]["x"][row : row + 1]}) for row in range(16)])
    assert np.abs(together - expected).max() < 0.1 * np.abs(expected).max()
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert ("conv", "static int8") == made.lineage


def test_cuts_together_are_the_whole(network: Artifact, tmp_path: Path) -> None:
    """Two cuts at a state, run one after the other, give bit for bit what the uncut graph gives."""
    cut(network, tmp_path / "first.onnx", inputs={"ids": "ids"}, outputs={"state": "state"})
    cut(network, tmp_path / "second.onnx", inputs={"state": "state"}, outputs={"logits": "answer"})
    ids = np.array([3, 1, 4])
    state = open_session(tmp_path / "first.onnx").run({"ids": ids})
    answer = open_session(tmp_path / "second.onnx").run(state)["answer"]
    assert np.array_equal(logits(network, {"ids": ids}), answer)


def test_a_cut_that_lacks_an_input_is_refused(network: Artifact, tmp_path: Path) -> None:
    """A cut names the tensor that it would need but is not given."""
    with pytest.raises(RecipeError, match="needs 'ids'"):
        cut(network, tmp_path / "part.onnx", inputs={}, outputs={"logits": "logits"})
    with pytest.raises(RecipeError, match="no input or output 'mixed'"):
        cut(network, tmp_path / "part.onnx", inputs={"mixed": "mixed"}, outputs={"logits": "logits"})
