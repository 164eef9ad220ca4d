"""Operators of ONNX graphs as torch computes them, held against onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from variants.porting.onnx_module import OnnxModule
from variants.porting.operator import UnsupportedError
from variants.porting.operators import OPERATORS
from variants.porting.program import write_program
from variants.session import open_session

FLOATS = np.random.default_rng(0).standard_normal((3, 4, 8, 8)).astype(np.float32)
VECTOR = np.random.default_rng(1).random(4).astype(np.float32) + 0.5
KERNEL = np.random.default_rng(2).standard_normal((6, 4, 3, 3)).astype(np.float32)
MATRIX = np.random.default_rng(3).standard_normal((8, 5)).astype(np.float32)


def save(path: Path, nodes: Sequence[onnx.NodeProto], constants: Mapping[str, NDArray[Any]], rank: int = 4) -> Path:
    """A graph from x, with any number of rows, to y."""
    shape = ["n", *FLOATS.shape[1:]][:rank]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def integers(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


Case = tuple[list[onnx.NodeProto], dict[str, NDArray[Any]]]


def one(operator: str, constants: dict[str, NDArray[Any]] | None = None, **attributes: Any) -> Case:
    """The operator of x and the constants."""
    constants = constants or {}
    return [helper.make_node(operator, ["x", *constants], ["y"], **attributes)], constants


CASES: dict[str, Case] = {
    "abs": one("Abs"),
    "add": one("Add", {"b": FLOATS[0]}),
    "average pool": one("AveragePool", kernel_shape=[2, 2], strides=[2, 2]),
    "average pool, padded": one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    "batch normalization": one("BatchNormalization", dict(zip("abcd", [VECTOR] * 4, strict=True))),
    "cast": (
        [
            helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT32),
            helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
        ],
        {},
    ),
    "clip": one("Clip", {"low": np.array(-0.5, np.float32), "high": np.array(0.5, np.float32)}),
    "clip above": ([helper.make_node("Clip", ["x", "", "high"], ["y"])], {"high": np.array(0.5, np.float32)}),
    "concat": ([helper.make_node("Concat", ["x", "x"], ["y"], axis=1)], {}),
    "conv": one("Conv", {"k": KERNEL, "b": np.ones(6, np.float32)}, pads=[1, 1, 1, 1], strides=[2, 2]),
    "conv, uneven padding": one("Conv", {"k": KERNEL}, pads=[0, 0, 1, 1]),
    "conv of groups": one("Conv", {"k": KERNEL[:4, :1]}, group=4),
    "div": one("Div", {"b": FLOATS[:1] + 5}),
    "erf": one("Erf"),
    "exp": one("Exp"),
    "expand": (
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Expand", ["v", "s"], ["w"]),
            helper.make_node("Add", ["w", "x"], ["y"]),
        ],
        {"v": VECTOR.reshape(1, 4, 1, 1)},
    ),
    "flatten": one("Flatten"),
    "flatten two": one("Flatten", axis=2),
    "gather one": one("Gather", {"i": np.array(2)}, axis=1),
    "gather some": one("Gather", {"i": integers(2, 0)}, axis=1),
    "global average pool": one("GlobalAveragePool"),
    "hard sigmoid": one("HardSigmoid", alpha=0.3),
    "hard swish": one("HardSwish"),
    "identity": one("Identity"),
    "layer normalization": one("LayerNormalization", {"s": MATRIX[:, 0], "b": MATRIX[:, 1]}, axis=-1),
    "leaky relu": one("LeakyRelu"),
    "matmul": one("MatMul", {"m": MATRIX}),
    "max": one("Max", {"b": FLOATS[0]}),
    "max pool": one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
    "min": one("Min", {"b": FLOATS[0]}),
    "mod": one("Mod", {"b": np.array(0.7, np.float32)}, fmod=1),
    "mul": one("Mul", {"b": VECTOR.reshape(4, 1, 1)}),
    "neg": one("Neg"),
    "pow": one("Pow", {"b": np.array(2.0, np.float32)}),
    "reduce max": one("ReduceMax", axes=[2, 3], keepdims=0),
    "reduce mean": one("ReduceMean", axes=[-1]),
    "reduce sum": one("ReduceSum", {"axes": integers(1, 2)}, keepdims=0),
    "reduce sum of all": one("ReduceSum"),
    "relu": one("Relu"),
    "reshape": one("Reshape", {"s": integers(0, -1, 16)}),
    "sigmoid": one("Sigmoid"),
    "slice": one("Slice", {"a": integers(1, 0), "b": integers(3, 2**31), "c": integers(1, -1), "d": integers(1, 2)}),
    "slice from the end": one("Slice", {"a": integers(-3), "b": integers(-1), "c": integers(2)}),
    "softmax": one("Softmax", axis=1),
    "sqrt": ([helper.make_node("Abs", ["x"], ["p"]), helper.make_node("Sqrt", ["p"], ["y"])], {}),
    "squeeze": (
        [helper.make_node("Unsqueeze", ["x", "a"], ["w"]), helper.make_node("Squeeze", ["w", "a"], ["y"])],
        {"a": integers(1, 3)},
    ),
    "sub": one("Sub", {"b": FLOATS[0]}),
    "tanh": one("Tanh"),
    "transpose": one("Transpose", perm=[0, 2, 3, 1]),
    "unsqueeze": one("Unsqueeze", {"a": integers(-1)}),
    "where": (
        [
            helper.make_node("Cast", ["x"], ["b"], to=TensorProto.BOOL),
            helper.make_node("Where", ["b", "x", "z"], ["y"]),
        ],
        {"z": np.zeros((), np.float32)},
    ),
    "shapes": (
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Gather", ["s", "first"], ["n"], axis=0),
            helper.make_node("Gather", ["s", "channels"], ["c"], axis=0),
            helper.make_node("Mul", ["c", "eight"], ["k"]),
            helper.make_node("Unsqueeze", ["n", "zero"], ["n1"]),
            helper.make_node("Unsqueeze", ["k", "zero"], ["k1"]),
            helper.make_node("Concat", ["n1", "k1", "rest"], ["shape"], axis=0),
            helper.make_node("Reshape", ["x", "shape"], ["y"]),
        ],
        {
            "first": np.array(0),
            "channels": np.array(1),
            "eight": np.array(8),
            "zero": integers(0),
            "rest": integers(-1),
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_operator_is_what_onnxruntime_computes(tmp_path: Path, case: str) -> None:
    """The same numbers of the same shape, for the rows it is exported with and for others."""
    path = save(tmp_path / "model.onnx", *CASES[case])
    reference, module = open_session(path), OnnxModule(path)
    for rows in (1, 3):
        with torch.no_grad():
            (given,) = module(torch.from_numpy(FLOATS[:rows]))
        np.testing.assert_allclose(reference.run({"x": FLOATS[:rows]})["y"], given.numpy(), atol=1e-5)


def test_tables_are_looked_up(tmp_path: Path) -> None:
    """Whole numbers from the input choose rows of a table, and columns of a third axis."""
    nodes = [
        helper.make_node("Cast", ["x"], ["ids"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "ids"], ["some"]),
        helper.make_node("Gather", ["cube", "ids"], ["y"], axis=1),
    ]
    table = {"table": np.tile(MATRIX, (10, 1)), "cube": FLOATS[0]}
    path = save(tmp_path / "model.onnx", nodes, table, rank=2)
    ids = np.array([[1, 0, 3], [2, 2, 7]], np.float32)
    (given,) = OnnxModule(path)(torch.from_numpy(ids))
    np.testing.assert_array_equal(FLOATS[0][:, ids.astype(np.int64)], given.numpy())


def test_a_network_is_exported_for_any_number_of_rows(tmp_path: Path) -> None:
    """A program exported with three rows answers one and seven as onnxruntime does."""
    path = save(tmp_path / "model.onnx", *CASES["shapes"])
    write_program(path, tmp_path / "model.pt2", {"x": FLOATS}, 1)
    reference, program = open_session(path), open_session(tmp_path / "model.pt2", runtime="torch")
    for rows in (1, 2, 7):
        x = np.resize(FLOATS, (rows, *FLOATS.shape[1:]))
        np.testing.assert_array_equal(reference.run({"x": x})["y"], program.run({"x": x})["y"])


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (helper.make_node("Selu", ["x"], ["y"]), "the operator Selu"),
        (helper.make_node("FusedGelu", ["x"], ["y"], domain="com.microsoft"), "the operator com.microsoft.FusedGelu"),
    ],
)
def test_what_has_no_translation_is_named(tmp_path: Path, node: onnx.NodeProto, said: str) -> None:
    """A graph with another operator is refused before anything is computed."""
    with pytest.raises(UnsupportedError, match=said):
        OnnxModule(save(tmp_path / "model.onnx", [node], {}))


def test_every_operator_is_held_against_onnxruntime() -> None:
    """No translation without a case above; `Gemm` is in the network that `tests/ported.py` brings."""
    tested = {node.op_type for nodes, _ in CASES.values() for node in nodes}
    assert {"Gemm"} == set(OPERATORS) - tested
