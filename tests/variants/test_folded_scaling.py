"""What shifts and scales numbers before they are rounded to int8 becomes part of the rounding, where that is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from tests.variants.graphs import logits, normal, operators, save_graph
from variants.preparation import Feeds
from variants.recipes.artifact import Artifact
from variants.recipes.folded_scaling import fold_scaling
from variants.recipes.static_int8 import IMAGE_OPERATORS, static_int8

Steps = list[tuple[str, float]]
PIXELS: Steps = [("Sub", 127.0), ("Div", 128.0)]
IMAGES = np.random.default_rng(3).integers(0, 256, (16, 3, 8, 8)).astype(np.float32)
IMAGES[:, :, 0, :2] = 0.0, 255.0


def convolution(path: Path, steps: Steps) -> Artifact:
    """Numbers that go through the steps, a convolution, and one logit for each of its channels."""
    names = ["x", *(f"after{number}" for number in range(len(steps)))]
    nodes = [
        helper.make_node(kind, [names[number], f"number{number}"], [names[number + 1]])
        for number, (kind, _) in enumerate(steps)
    ]
    nodes += [
        helper.make_node("Conv", [names[-1], "kernel", "bias"], ["wide"]),
        helper.make_node("Relu", ["wide"], ["kept"]),
        helper.make_node("GlobalAveragePool", ["kept"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
    ]
    constants: dict[str, NDArray[Any]] = {"kernel": normal(4, 3, 3, 3), "bias": normal(4, seed=1)}
    constants |= {f"number{number}": np.array(value, np.float32) for number, (_, value) in enumerate(steps)}
    return save_graph(path, nodes, constants, x=("n", 3, 8, 8))


def rounded(path: Path, steps: Steps, scale: float, zero: int) -> Path:
    """A graph that rounds what the steps make of its numbers, and takes that back; the result is `logits`."""
    nodes = [
        helper.make_node(kind, ["x" if not number else f"after{number - 1}", f"number{number}"], [f"after{number}"])
        for number, (kind, _) in enumerate(steps)
    ]
    nodes += [
        helper.make_node("QuantizeLinear", [f"after{len(steps) - 1}", "scale", "zero"], ["steps"]),
        helper.make_node("DequantizeLinear", ["steps", "scale", "zero"], ["logits"]),
    ]
    constants: dict[str, NDArray[Any]] = {"scale": np.array(scale, np.float32), "zero": np.array(zero, np.uint8)}
    constants |= {f"number{number}": np.array(value, np.float32) for number, (_, value) in enumerate(steps)}
    save_graph(path, nodes, constants, x=("n", 256), outputs={"logits": ("n", 256)})
    return path


def answers(path: Path) -> NDArray[np.float32]:
    return logits(Artifact(path, "", (), 0), np.arange(256, dtype=np.float32)[np.newaxis])


def test_pixels_are_rounded_as_they_are(tmp_path: Path) -> None:
    """A convolution in int8 takes bytes of its input without a pass before it, and gives the very answers of two."""
    source = convolution(tmp_path / "source.onnx", PIXELS)
    made = static_int8(source, tmp_path / "made.onnx", [Feeds(x=IMAGES)], operators=IMAGE_OPERATORS)
    onnx.checker.check_model(onnx.load(made.path))
    assert {"Sub", "Div"}.isdisjoint(operators(made))
    wanted = logits(source, IMAGES)
    assert np.abs(logits(made, IMAGES) - wanted).max() < 0.03 * np.ptp(wanted)


@given(
    shift=st.integers(0, 255),
    divisor=st.sampled_from([0.5, 1.0, 3.0, 58.4, 128.0, 255.0]),
    kinds=st.sampled_from(["SubDiv", "AddDiv", "SubMul", "MulAdd"]),
)
def test_what_is_rounded_at_once_is_what_was_rounded(
    tmp_path_factory: pytest.TempPathFactory, shift: int, divisor: float, kinds: str
) -> None:
    """In whichever order numbers are shifted and scaled, every grey value comes out as it did; no pass is left."""
    steps: Steps = {
        "SubDiv": [("Sub", shift), ("Div", divisor)],
        "AddDiv": [("Add", -shift), ("Div", divisor)],
        "SubMul": [("Sub", shift), ("Mul", 1 / divisor)],
        "MulAdd": [("Mul", 1 / divisor), ("Add", -shift / divisor)],
    }[kinds]
    path = rounded(tmp_path_factory.mktemp("rounded") / "graph.onnx", steps, 1 / divisor, shift)
    before = answers(path)
    assert 2 == fold_scaling(path)
    onnx.checker.check_model(onnx.load(path))
    np.testing.assert_array_equal(before, answers(path))


@pytest.mark.parametrize(
    ("steps", "scale", "zero"),
    [
        ([("Sub", 127.3), ("Div", 128.0)], 1 / 128, 127),
        ([("Sub", 127.0), ("Div", -128.0)], 1 / 128, 127),
        ([("Sub", -20.0), ("Div", 1.0)], 1.0, 240),
        ([("Sub", 127.0), ("Pow", 2.0)], 64.0, 0),
    ],
)
def test_what_would_come_out_otherwise_stays(steps: Steps, scale: float, zero: int, tmp_path: Path) -> None:
    """A shift by half a step, a scale below zero, a zero point beyond the type, and what is no scaling at all."""
    path = rounded(tmp_path / "graph.onnx", steps, scale, zero)
    before = path.read_bytes()
    assert 0 == fold_scaling(path)
    assert before == path.read_bytes()


def test_what_is_read_elsewhere_stays(tmp_path: Path) -> None:
    """A scaled tensor that something else takes, too, is still made; another one's scale stays as it is."""
    path = rounded(tmp_path / "graph.onnx", PIXELS, 1 / 128, 127)
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info("after1", onnx.TensorProto.FLOAT, ["n", 256]))
    onnx.save(model, path)
    assert 0 == fold_scaling(path)
