"""What activations are never below is seen from the operators that make them, and used for their scales."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.variants.graphs import logits, normal, operators, save_graph
from variants.recipes.least_values import LEAST_OF_GELU, LeastValues
from variants.recipes.rowwise_int8 import rowwise_int8

NUMBERS = {"root": math.sqrt(2.0), "turned": math.sqrt(0.5), "one": 1.0, "half": 0.5, "most": 0.6, "three": 3.0}
NODES = {
    "y": ("Relu", "x"),
    "root of x": ("Div", "x", "root"),
    "turned x": ("Mul", "turned", "x"),
    "erf": ("Erf", "root of x"),
    "erf, too": ("Erf", "turned x"),
    "share": ("Add", "erf", "one"),
    "share, too": ("Add", "one", "erf, too"),
    "half of x": ("Mul", "x", "half"),
    "twice": ("Mul", "x", "share"),
    # GELU, as it may be spelt
    "first": ("Mul", "twice", "half"),
    "second": ("Mul", "half of x", "share, too"),
    "third": ("Mul", "share", "half of x"),
    # and what only looks like it
    "more": ("Mul", "twice", "most"),
    "all": ("Mul", "x", "share"),
    "of another": ("Mul", "half of y", "share"),
    "half of y": ("Mul", "y", "half"),
    "erf of more": ("Erf", "three times"),
    "three times": ("Mul", "x", "three"),
    "wrong share": ("Add", "erf of more", "one"),
    "steeper": ("Mul", "half of x", "wrong share"),
    "square": ("Mul", "x", "x"),
    "over": ("Div", "one", "x"),
}
BOUNDS = {
    "y": 0.0,
    **dict.fromkeys(("first", "second", "third"), LEAST_OF_GELU),
    **dict.fromkeys(("x", "nobody's", "more", "all", "of another", "steeper", "square", "over", "root of x"), None),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_are_known_of_rectifiers_alone(name: str) -> None:
    """ReLU and GELU in any spelling have a least value; what only looks like GELU has none that is known."""
    graph = onnx.GraphProto()
    for output, (kind, *inputs) in NODES.items():
        graph.node.append(helper.make_node(kind, inputs, [output]))
    constants = {number: np.array(value, np.float32) for number, value in NUMBERS.items()}
    assert BOUNDS[name] == LeastValues(graph, constants).of(name)


def test_gelu_is_never_below_its_bound() -> None:
    """The bound holds for every number, and hardly more than it must."""
    x = np.linspace(-8.0, 8.0, 16_001)
    gelu = x * (1.0 + np.array([math.erf(value / math.sqrt(2.0)) for value in x])) / 2.0
    assert LEAST_OF_GELU <= gelu.min() < LEAST_OF_GELU + 1e-3


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0], ids=["all below the bound", "usual", "large"])
def test_rows_after_gelu_are_quantized_in_one_pass_less(scale: float, tmp_path: Path) -> None:
    """After GELU the row's largest value is its scale, without |x|; answers are the original's but for rounding."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["wide"]),
        helper.make_node("Div", ["wide", "root"], ["scaled"]),
        helper.make_node("Erf", ["scaled"], ["erf"]),
        helper.make_node("Add", ["erf", "one"], ["share"]),
        helper.make_node("Mul", ["wide", "share"], ["twice"]),
        helper.make_node("Mul", ["twice", "half"], ["gelu"]),
        helper.make_node("MatMul", ["gelu", "head"], ["logits"]),
    ]
    numbers = {name: np.array(NUMBERS[name], np.float32) for name in ("root", "one", "half")}
    source = save_graph(tmp_path / "source.onnx", nodes, {"w": normal(32, 64), "head": normal(64, 32), **numbers})
    made = rowwise_int8(source, tmp_path / "int8.onnx")
    assert (1, 2) == (operators(made).count("Abs"), operators(made).count("ReduceMax"))
    rows = scale * normal(40, 32, seed=9)
    expected = logits(source, rows)
    assert np.abs(logits(made, rows) - expected).max() < 0.03 * max(float(np.ptp(expected)), 0.17)
    floors = {tensor.name for tensor in onnx.load(made.path).graph.initializer if "floor" in tensor.name}
    assert {"rowwise_floor_0.17", "rowwise_floor_1e-06"} == floors
