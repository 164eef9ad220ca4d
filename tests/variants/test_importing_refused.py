"""Files that cannot be imported: each fault is one line that names the file and what would be right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.variants.graphs import normal, save_graph, save_mlp, save_samples
from variants.importing.answer import answer_of
from variants.importing.family import imported_family
from variants.importing.model import read_model
from variants.importing.rows import read_samples
from variants.spec import BuildError

ROWS = normal(200, 32, seed=9)
HEAD = {"w": normal(32, 4)}


def product(output: str = "logits", start: str = "x") -> onnx.NodeProto:
    return helper.make_node("MatMul", [start, "w"], [output])


def edited(path: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    save_graph(path, [product()], HEAD)
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def fixed_batch(path: Path) -> None:
    save_graph(path, [product()], HEAD, x=(1, 32), outputs={"logits": (1, 4)})


def fixed_inside(path: Path) -> None:
    flat = helper.make_node("Reshape", ["x", "shape"], ["flat"])
    save_graph(path, [flat, product(start="flat")], {**HEAD, "shape": np.array([1, 32])})


def one_answer(path: Path) -> None:
    mean = helper.make_node("ReduceMean", ["product"], ["logits"], axes=[0], keepdims=1)
    save_graph(path, [product("product"), mean], HEAD)


def rank_three(path: Path) -> None:
    tall = helper.make_node("Unsqueeze", ["product", "axis"], ["logits"])
    save_graph(path, [product("product"), tall], {**HEAD, "axis": np.array([1])}, outputs={"logits": ("n", 1, 4)})


def two_outputs(path: Path) -> None:
    both = [product(), helper.make_node("Neg", ["logits"], ["other"])]
    save_graph(path, both, HEAD, outputs={"logits": ("n", 4), "other": ("n", 4)})


def labels_only(path: Path) -> None:
    save_graph(path, [product(), helper.make_node("ArgMax", ["logits"], ["label"], axis=1)], HEAD)
    model = onnx.load(path)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("label", TensorProto.INT64, ["n", 1]))
    onnx.save(model, path)


def not_finite(path: Path) -> None:
    save_graph(path, [product("product"), helper.make_node("Log", ["product"], ["logits"])], HEAD)


def without_its_weights(path: Path) -> None:
    save_graph(path, [product()], HEAD)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (path.parent / "weights.bin").unlink()


def renamed_input(path: Path, name: str) -> None:
    save_graph(path, [product("answer")], HEAD, outputs={"answer": ("n", 4)})
    model = onnx.load(path)
    model.graph.input[0].name = model.graph.node[0].input[0] = name
    onnx.save(model, path)


BROKEN: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "text": lambda path: path.write_text("no model"),
    "empty": lambda path: path.write_bytes(b""),
    "fixed batch": fixed_batch,
    "fixed inside": fixed_inside,
    "one answer": one_answer,
    "rank 3": rank_three,
    "one column": lambda path: save_graph(path, [product()], {"w": normal(32, 1)}, outputs={"logits": ("n", 1)}),
    "sigmoid": lambda path: save_mlp(path, last="Sigmoid"),
    "two outputs": two_outputs,
    "two inputs": lambda path: edited(
        path, lambda model: model.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"]))
    ),
    "no inputs": lambda path: edited(path, lambda model: model.graph.input.pop()),
    "text input": lambda path: edited(
        path, lambda model: model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.STRING, ["n"]))
    ),
    "labels only": labels_only,
    "unknown operator": lambda path: save_graph(path, [helper.make_node("Nonsense", ["x"], ["logits"])], {}),
    "opset of the future": lambda path: save_graph(path, [product()], HEAD, opset=99),
    "input called logits": lambda path: renamed_input(path, "logits"),
    "input called label": lambda path: renamed_input(path, "label"),
    "not finite": not_finite,
    "external data": without_its_weights,
}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "model.onnx: cannot be read: No such file"),
        ("text", "model.onnx: cannot be read as ONNX: "),
        ("empty", "model.onnx: cannot be read as ONNX: "),
        ("fixed batch", "input 'x' has a fixed batch of 1: export it with a dynamic first dimension"),
        ("fixed inside", "fails on a batch of 16 (is its first dimension dynamic throughout?)"),
        ("one answer", "output 'logits' is [1, 4] for a batch of 16 rows: expected one answer for each"),
        ("rank 3", "expected an output of logits or probabilities [n, k], it has logits [any, 1, 4]"),
        ("one column", "output 'logits' has 1 column, a classifier needs one for each of at least 2 labels"),
        ("sigmoid", "output 'answer' is a sigmoid"),
        ("two outputs", "has the outputs logits, other: choose one with --output"),
        ("two inputs", "has 2 inputs (x, y), only models of one input can be imported"),
        ("no inputs", "has 0 inputs (none)"),
        ("text input", "input 'x' is not a tensor of numbers"),
        ("labels only", "expected an output of logits or probabilities [n, k], it has no tensor of floats"),
        ("unknown operator", "model.onnx: cannot be opened: "),
        ("opset of the future", "ONNX Runtime only *guarantees* support for models stamped with official released"),
        ("input called logits", "its input is called 'logits', a name that is taken"),
        ("input called label", "its input is called 'label', a name that is taken"),
        ("not finite", "output 'logits' holds values that are not finite"),
        ("external data", "model.onnx: cannot be read as ONNX: "),
    ],
)
def test_wrong_models_are_refused_in_one_line(fault: str, message: str, tmp_path: Path) -> None:
    """Each fault of a model file is named with the file and with what would be right."""
    model = tmp_path / "model.onnx"
    BROKEN[fault](model)
    with pytest.raises(BuildError) as refused:
        imported_family("mine", model, save_samples(tmp_path, x=ROWS))
    assert message in str(refused.value)
    assert str(model) in str(refused.value)
    assert 1 == len(str(refused.value).splitlines())


def test_an_output_can_be_chosen(tmp_path: Path) -> None:
    """Of two outputs that could be meant the named one is read; a name that is none is refused with those there are."""
    model = tmp_path / "model.onnx"
    two_outputs(model)
    answer = answer_of(read_model(model, "other"), ROWS)
    np.testing.assert_allclose(answer.reference()({"x": ROWS}), -(ROWS @ normal(32, 4)), atol=1e-4)
    with pytest.raises(BuildError, match="has no output 'third' of numbers, but logits, other"):
        read_model(model, "third")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": ROWS}, "array 'y' is unknown, expected x, label, labels"),
        ({"label": np.zeros(200, int)}, "has no rows: expected an array 'x'"),
        ({"x": ROWS[:39]}, "has 39 rows, expected at least 40"),
        ({"x": np.float32(3)}, "has 0 rows"),
        ({"x": ROWS[:, :16]}, "input 'x' takes [n, 32], the samples are [n, 16]"),
        ({"x": ROWS[:, :, None]}, "input 'x' takes [n, 32], the samples are [n, 32, 1]"),
        ({"x": ROWS * np.inf}, "rows hold values that are not finite 32-bit floats"),
        ({"x": np.full((50, 32), 2**24 + 1)}, "rows hold integers beyond 2^24"),
        ({"x": np.full((50, 32), "a")}, "rows are <U1, expected numbers"),
        ({"x": np.full((50, 32), None)}, "is no .npz of plain arrays (numpy.savez), or holds Python objects"),
        ({"x": ROWS, "label": np.zeros(3, int)}, "'label' is int64 [3], expected integers [200], one for each row"),
        ({"x": ROWS, "label": np.zeros(200)}, "'label' is float64 [200], expected integers [200]"),
        ({"x": ROWS, "label": np.full(200, 4)}, "'label' has values 4 to 4, the model's 4 outputs need 0 to 3"),
        ({"x": ROWS, "label": np.full(200, -1)}, "'label' has values -1 to -1"),
        ({"x": ROWS, "labels": np.zeros(200, int)}, "true labels of rows belong into 'label'"),
        ({"x": ROWS, "labels": ["a", "b"]}, "'labels' has 2 names, the model gives 4 outputs"),
        ({"x": ROWS, "labels": ["a", "b", "c", "a"]}, "'labels' names two labels alike"),
        ({"x": ROWS, "labels": [b"\xff", b"b", b"c", b"d"]}, "'labels' holds bytes that are not UTF-8"),
    ],
)
def test_wrong_samples_are_refused_in_one_line(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Each fault of a file of rows is named with what would be right."""
    samples = save_samples(tmp_path, **arrays)
    with pytest.raises(BuildError) as refused:
        imported_family("mine", save_mlp(tmp_path / "mlp.onnx").path, samples)
    assert message in str(refused.value)
    assert 1 == len(str(refused.value).splitlines())


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read: No such file"), (b"", "cannot be read"), (b"PK\x03\x04 torn", "cannot be read as .npz")],
)
def test_files_that_hold_no_arrays(content: bytes | None, message: str, tmp_path: Path) -> None:
    """Missing, empty and damaged files, and a single array, are told apart from what is expected."""
    path = tmp_path / "samples.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BuildError, match=message):
        read_samples(path, "x")
    np.save(tmp_path / "one.npy", ROWS)
    with pytest.raises(BuildError, match=r"holds one array, expected an \.npz file with 'x'"):
        read_samples(tmp_path / "one.npy", "x")
