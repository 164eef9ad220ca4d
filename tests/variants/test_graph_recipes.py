"""Recipes that work on any ONNX graph: what they write computes nearly the same, in another form."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.variants.graphs import logits, normal, operators, save_cnn, save_graph, save_mlp
from variants.preparation import Feeds
from variants.recipes.artifact import Artifact, RecipeError
from variants.recipes.codebook import clustered
from variants.recipes.dynamic_int8 import dynamic_int8
from variants.recipes.half_weights import Half, half_weights
from variants.recipes.int8_values import LARGEST_IN_PRODUCTS
from variants.recipes.rowwise_int8 import rowwise_int8
from variants.recipes.slim import slim
from variants.recipes.static_int8 import IMAGE_OPERATORS, Calibration, static_int8
from variants.recipes.weight_only import weight_only

ROWS = normal(40, 32, seed=9)
IMAGES = normal(24, 1, 8, 8, seed=9)
Recipe = Callable[[Artifact, Path], Artifact]


def batches(rows: NDArray[Any], batch: int = 8) -> list[Feeds]:
    return [{"x": rows[start : start + batch]} for start in range(0, len(rows), batch)]


RECIPES: dict[str, tuple[Recipe, float, bool]] = {
    "row-wise int8": (rowwise_int8, 0.03, True),
    "dynamic int8": (dynamic_int8, 0.03, False),
    "static int8": (lambda source, path: static_int8(source, path, batches(ROWS)), 0.03, True),
    "weight-only int8": (lambda source, path: weight_only(source, path, bits=8), 0.02, True),
    "weight-only int4": (lambda source, path: weight_only(source, path, bits=4), 0.2, True),
    "fp16": (half_weights, 0.001, True),
    "bf16": (lambda source, path: half_weights(source, path, Half.BF16), 0.01, True),
    "256 values": (clustered, 0.01, True),
    "16 values": (lambda source, path: clustered(source, path, bits=4), 0.2, True),
    "slim": (slim, 1e-6, True),
}
"""By name: the recipe, the largest difference of logits (of their range), and whether it is batch-invariant."""


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("name", RECIPES)
def test_recipes_keep_the_answers(name: str, opset: int, tmp_path: Path) -> None:
    """Every recipe writes a valid graph, in old and new opsets, whose logits are the original's but for rounding."""
    recipe, tolerance, _ = RECIPES[name]
    source = save_mlp(tmp_path / "source.onnx", opset=opset)
    made = recipe(source, tmp_path / "made.onnx")
    onnx.checker.check_model(onnx.load(made.path))
    expected = logits(source, ROWS)
    assert np.abs(logits(made, ROWS) - expected).max() < tolerance * np.ptp(expected)
    assert (source.parameters, "by hand") == (made.parameters, made.lineage[0])
    assert 2 == len(made.lineage)


@pytest.mark.parametrize("name", RECIPES)
def test_answers_depend_on_the_batch_only_in_plain_dynamic_int8(name: str, tmp_path: Path) -> None:
    """A row alone is answered as among 39 others, by all recipes but the one that is known not to do so."""
    recipe, _, invariant = RECIPES[name]
    made = recipe(save_mlp(tmp_path / "source.onnx"), tmp_path / "made.onnx")
    alone = np.concatenate([logits(made, ROWS[row : row + 1]) for row in range(len(ROWS))])
    difference = np.abs(logits(made, ROWS) - alone).max()
    assert (difference < 1e-5) == invariant


@pytest.mark.parametrize(
    ("name", "bytes_a_weight"),
    [
        ("row-wise int8", 1),
        ("static int8", 1),
        ("weight-only int8", 1.13),
        ("weight-only int4", 0.63),
        ("fp16", 2),
        ("bf16", 2),
        ("256 values", 1),
        ("16 values", 0.5),
    ],
)
def test_files_are_as_long_as_the_format_says(name: str, bytes_a_weight: float, tmp_path: Path) -> None:
    """A matrix of 256 x 256 weights takes its bytes, scales included, and not much beside."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["wide"]),
        helper.make_node("MatMul", ["wide", "head"], ["logits"]),
    ]
    constants = {"w": normal(256, 256), "head": normal(256, 3)}
    source = save_graph(tmp_path / "source.onnx", nodes, constants, x=("n", 256), outputs={"logits": ("n", 3)})
    recipe, *_ = RECIPES[name]
    if name == "static int8":
        recipe = partial(static_int8, calibration=batches(normal(16, 256)))
    made = recipe(source, tmp_path / "made.onnx")
    overhead = 256 * 3 * 4 + 6000 + 256 * 4
    assert 256 * 256 * bytes_a_weight <= made.path.stat().st_size < 256 * 256 * bytes_a_weight + overhead


@pytest.mark.parametrize("method", Calibration)
def test_static_int8_of_a_convolution(method: Calibration, tmp_path: Path) -> None:
    """Under every calibration a convolutional network keeps its answers; convolutions and ReLUs run as integers."""
    source = save_cnn(tmp_path / "cnn.onnx")
    made = static_int8(source, tmp_path / "int8.onnx", batches(IMAGES), operators=IMAGE_OPERATORS, method=method)
    expected = logits(source, IMAGES)
    assert np.abs(logits(made, IMAGES) - expected).max() < 0.1 * np.ptp(expected)
    nodes = onnx.load(made.path).graph.node
    readers = {name: node.op_type for node in nodes for name in node.input}
    outputs = {node.op_type: readers.get(node.output[0]) for node in nodes if node.op_type in ("Conv", "MatMul")}
    assert {"Conv": "QuantizeLinear", "MatMul": None} == outputs
    assert "Relu" not in operators(made)


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ([], "no calibration batches"),
        (batches(ROWS, 16), r"batches of x have shapes \[8, 32\] and \[16, 32\]: all must have the same"),
    ],
)
def test_static_int8_wants_batches_of_one_shape(calibration: list[Feeds], message: str, tmp_path: Path) -> None:
    """Missing batches and batches of unequal length are refused with their shapes."""
    with pytest.raises(RecipeError, match=message):
        static_int8(save_mlp(tmp_path / "source.onnx"), tmp_path / "made.onnx", calibration)


def test_depthwise_weights_of_static_int8_have_eight_bits(tmp_path: Path) -> None:
    """A filter of one channel uses all of int8; convolutions across channels, in groups too, keep to seven bits."""
    names = ("whole", "depthwise", "grouped", "several")
    shapes = {"whole": (8, 1, 3, 3), "depthwise": (8, 1, 3, 3), "grouped": (8, 4, 3, 3), "several": (16, 1, 3, 3)}
    groups = {"whole": 1, "depthwise": 8, "grouped": 2, "several": 8}
    nodes = [
        helper.make_node("Conv", [before, name], [f"{name}_out"], group=groups[name])
        for before, name in zip(("x", *(f"{name}_out" for name in names)), names, strict=False)
    ]
    nodes += [
        helper.make_node("GlobalAveragePool", ["several_out"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
    ]
    constants = {name: normal(*shape) for name, shape in shapes.items()}
    outputs = {"logits": ("n", 16)}
    source = save_graph(tmp_path / "source.onnx", nodes, constants, x=("n", 1, 12, 12), outputs=outputs)
    images = [Feeds(x=normal(8, 1, 12, 12))]
    made = static_int8(source, tmp_path / "made.onnx", images, operators=IMAGE_OPERATORS)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(made.path).graph.initializer}
    largest = {name: int(np.abs(weights[f"{name}_quantized"].astype(np.int64)).max()) for name in names}
    assert {"whole": 64, "depthwise": 127, "grouped": 64, "several": 64} == largest


def test_weights_of_products_have_seven_bits(tmp_path: Path) -> None:
    """So that uint8 x int8 pairs never saturate 16 bits: 255 * 63 * 2 fits, on machines without VNNI too."""
    assert 255 * LARGEST_IN_PRODUCTS * 2 < 2**15
    source = save_mlp(tmp_path / "source.onnx")
    for name in ("row-wise int8", "dynamic int8", "static int8"):
        made = RECIPES[name][0](source, tmp_path / "made.onnx")
        largest = max(
            np.abs(numpy_helper.to_array(tensor).astype(int)).max()
            for tensor in onnx.load(made.path).graph.initializer
            if tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 2
        )
        assert LARGEST_IN_PRODUCTS - 1 <= largest <= LARGEST_IN_PRODUCTS + 1


def test_rows_of_one_sign_do_not_saturate(tmp_path: Path) -> None:
    """The products that saturated with 8 bits, large weights on large inputs, are right."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["logits"])]
    source = save_graph(tmp_path / "source.onnx", nodes, {"w": np.ones((512, 4), np.float32)}, x=("n", 512))
    made = rowwise_int8(source, tmp_path / "int8.onnx")
    np.testing.assert_allclose(logits(made, np.ones((3, 512), np.float32)), 512.0, rtol=1e-3)


@pytest.mark.parametrize(
    "gemm",
    [
        {},
        {"transB": 1},
        {"alpha": 0.5},
        {"alpha": 2.0, "beta": 0.25, "transB": 1},
    ],
)
def test_rowwise_takes_every_gemm(gemm: dict[str, Any], tmp_path: Path) -> None:
    """Transposed weights and factors of the product and of the bias are as in the original."""
    weights = normal(32, 64) / 6
    turned: NDArray[Any] = weights.T.copy() if gemm.get("transB") else weights
    constants = {"w": turned, "b": normal(64), "head": normal(64, 4) / 8}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["wide"], **gemm),
        helper.make_node("MatMul", ["wide", "head"], ["logits"]),
    ]
    source = save_graph(tmp_path / "source.onnx", nodes, constants)
    made = rowwise_int8(source, tmp_path / "int8.onnx")
    assert 1 == operators(made).count("MatMulIntegerToFloat")
    expected = logits(source, ROWS)
    assert np.abs(logits(made, ROWS) - expected).max() < 0.03 * np.ptp(expected)


def test_rowwise_finds_weights_in_constant_nodes(tmp_path: Path) -> None:
    """Weights that an exporter wrote as `Constant` nodes are quantized like initializers."""
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(normal(32, 64), "value")),
        helper.make_node("MatMul", ["x", "w"], ["wide"]),
        helper.make_node("MatMul", ["wide", "head"], ["logits"]),
    ]
    source = save_graph(tmp_path / "source.onnx", nodes, {"head": normal(64, 4)})
    assert 1 == operators(rowwise_int8(source, tmp_path / "int8.onnx")).count("MatMulIntegerToFloat")


def test_rowwise_leaves_convolutions_alone(tmp_path: Path) -> None:
    """A network of convolutions has nothing to quantize row by row, and the recipe says so."""
    with pytest.raises(RecipeError, match="no MatMul, Gemm or Gather with at least 1024 constant weights"):
        rowwise_int8(save_cnn(tmp_path / "cnn.onnx"), tmp_path / "int8.onnx")


@pytest.mark.parametrize("name", ["row-wise int8", "weight-only int4", "fp16", "256 values"])
def test_constants_that_a_branch_reads_stay(name: str, tmp_path: Path) -> None:
    """A matrix that is also read inside an `If` keeps its float form there."""
    then = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["chosen"])],
        "then",
        [],
        [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, [32, 32])],
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["w"], ["negative"])],
        "other",
        [],
        [helper.make_tensor_value_info("negative", TensorProto.FLOAT, [32, 32])],
    )
    nodes = [
        helper.make_node("If", ["yes"], ["same"], then_branch=then, else_branch=other),
        helper.make_node("MatMul", ["x", "w"], ["once"]),
        helper.make_node("MatMul", ["once", "same"], ["twice"]),
        helper.make_node("MatMul", ["twice", "head"], ["logits"]),
    ]
    constants = {"yes": np.array(True), "w": normal(32, 32) / 6, "head": normal(32, 4)}
    source = save_graph(tmp_path / "source.onnx", nodes, constants)
    made = RECIPES[name][0](source, tmp_path / "made.onnx")
    expected = logits(source, ROWS)
    assert np.abs(logits(made, ROWS) - expected).max() < 0.2 * np.ptp(expected)


def test_half_weights_keep_what_does_not_fit(tmp_path: Path) -> None:
    """A constant with a value beyond fp16 stays float32; where none is left, the recipe refuses; bf16 takes it."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["logits"])]
    weights = normal(512, 4)
    weights[0, 0] = 1e6
    source = save_graph(tmp_path / "source.onnx", nodes, {"w": weights}, x=("n", 512))
    with pytest.raises(RecipeError, match="weights that fit fp16"):
        half_weights(source, tmp_path / "fp16.onnx")
    assert "bf16" == half_weights(source, tmp_path / "bf16.onnx", Half.BF16).recipe


def test_slim_unhides_weights(tmp_path: Path) -> None:
    """Weights behind a `Transpose` are seen by the next recipe once the graph is slimmed; lineage tells both steps."""
    nodes = [
        helper.make_node("Transpose", ["w"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["wide"]),
        helper.make_node("MatMul", ["wide", "head"], ["logits"]),
    ]
    source = save_graph(tmp_path / "source.onnx", nodes, {"w": normal(64, 32), "head": normal(64, 4)})
    with pytest.raises(RecipeError):
        rowwise_int8(source, tmp_path / "int8.onnx")
    slimmed = slim(source, tmp_path / "slim.onnx")
    made = rowwise_int8(slimmed, tmp_path / "int8.onnx")
    assert ("by hand", "slimmed", "row-wise int8") == made.lineage
    assert ("export", "rowwise-int8") == (slimmed.recipe, made.recipe)
