from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tests.networks import convolutional, digits, encoder, perceptron, sentences
from variants.recipes.artifact import RecipeError
from variants.recipes.folded_int8 import fold_int8, quantized
from variants.recipes.quantization_aware import QuantizationAware
from variants.recipes.supervised import Supervised
from variants.session import open_session
from variants.training.export import QUANTIZED, export_model
from variants.training.fake_quantization import roundings
from variants.training.model import Model, logits_of
from variants.training.settings import FitSettings

QUICK = FitSettings(epochs=2, batch=50, rate=3e-4)
CALIBRATION = FitSettings(epochs=0, batch=50)


@cache
def trained() -> Model:
    return Supervised(FitSettings(epochs=6, batch=50, rate=3e-3))(convolutional(), digits())


@cache
def trained_encoder() -> Model:
    return Supervised(FitSettings(epochs=2, rate=3e-3))(encoder(), sentences())


def operators(path: Path, folder: Path) -> list[str]:
    """The operators of the graph that onnxruntime makes of a file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(path, options)
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


@pytest.mark.parametrize("fit", [QUICK, CALIBRATION], ids=["trained", "calibrated"])
def test_a_convolutional_network_runs_in_int8(tmp_path: Path, fit: FitSettings) -> None:
    """Every layer and the skip connection run on int8 kernels, none in float; answers are the trained module's."""
    made = QuantizationAware(fit)(trained(), digits())
    artifact = export_model(made, tmp_path / "int8.onnx")
    onnx.checker.check_model(str(artifact.path))
    found = operators(artifact.path, tmp_path)
    assert (4, 1, 2) == tuple(found.count(name) for name in ("QLinearConv", "QLinearAdd", "QGemm"))
    assert {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul"}.isdisjoint(found)
    images = digits().validation.inputs[0].numpy()
    expected = made.reference()({"image": images})
    actual = open_session(artifact.path).run({"image": images})["logits"]
    assert np.abs(actual - expected).max() < 0.02 * np.abs(expected).max()
    assert np.mean(actual.argmax(axis=1) == expected.argmax(axis=1)) > 0.98


def test_the_file_is_near_a_quarter_and_says_what_it_is(tmp_path: Path) -> None:
    """Weights are stored as int8; recipe, lineage and the rounded layers are recorded."""
    made = QuantizationAware(QUICK)(trained(), digits())
    whole = export_model(trained(), tmp_path / "fp32.onnx")
    artifact = export_model(made, tmp_path / "int8.onnx")
    assert artifact.recipe == QUANTIZED
    assert artifact.lineage[-1].startswith("quantization-aware training")
    assert made.lineage[-1].measures["rounded_layers"] == 6.0
    stored = {tensor.name: tensor for tensor in onnx.load(artifact.path).graph.initializer}
    large = [tensor for tensor in stored.values() if np.prod(tensor.dims) > 200]
    assert {TensorProto.INT8} == {tensor.data_type for tensor in large}
    assert artifact.path.stat().st_size < 0.45 * whole.path.stat().st_size


def test_int8_answers_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    """Ranges are fixed, so a row is answered alone as it is among others."""
    artifact = export_model(QuantizationAware(QUICK)(trained(), digits()), tmp_path / "int8.onnx")
    session = open_session(artifact.path)
    images = digits().validation.inputs[0].numpy()
    together = session.run({"image": images})["logits"]
    alone = np.concatenate([session.run({"image": images[row : row + 1]})["logits"] for row in range(20)])
    np.testing.assert_array_equal(together[:20], alone)


def test_a_transformer_runs_in_int8(tmp_path: Path) -> None:
    """Matrix products over tokens become int8 products with float outputs; answers are the trained module's."""
    made = QuantizationAware(QUICK)(trained_encoder(), sentences())
    artifact = export_model(made, tmp_path / "int8.onnx")
    found = operators(artifact.path, tmp_path)
    assert found.count("MatMulIntegerToFloat") >= 6
    ids, mask = (values.numpy() for values in sentences().validation.inputs)
    for tokens in (6, 10):
        feeds = {"input_ids": ids[:, :tokens], "attention_mask": mask[:, :tokens]}
        expected = made.reference()(feeds)
        actual = open_session(artifact.path).run(feeds)["logits"]
        assert np.abs(actual - expected).max() < 0.05 * np.abs(expected).max() + 0.02


def test_training_lowers_the_loss_of_rounding() -> None:
    """On the rows that it learnt from, the trained network has a lower loss than the merely calibrated one."""
    rows = digits().train

    def loss(fit: FitSettings) -> float:
        made = QuantizationAware(fit)(trained(), digits())
        return float(nn.functional.cross_entropy(logits_of(made.module, rows), rows.labels))

    assert loss(FitSettings(epochs=3, batch=50, rate=1e-3)) < loss(CALIBRATION)


def test_ranges_move_only_while_training() -> None:
    """Answering, with inputs far out of range, changes no range and clips to it."""
    made = QuantizationAware(QUICK)(trained(), digits())
    before = [rounding.scale.clone() for rounding in roundings(made.module)]
    first = made.module(digits().validation.inputs[0])
    made.module(100.0 * digits().validation.inputs[0])
    assert all(torch.equal(old, now.scale) for old, now in zip(before, roundings(made.module), strict=True))
    assert torch.equal(first, made.module(digits().validation.inputs[0]))


@pytest.mark.parametrize(("bits", "most"), [(7, 64), (8, 128)])
def test_weights_keep_to_their_bits(tmp_path: Path, bits: int, most: int) -> None:
    """Stored weights lie within the range of their bits, and use it."""
    recipe = QuantizationAware(CALIBRATION, weight_bits=bits)  # type: ignore[arg-type]  # 7 or 8
    artifact = export_model(recipe(trained(), digits()), tmp_path / "int8.onnx")
    graph = onnx.load(artifact.path).graph
    stored = [numpy_helper.to_array(entry) for entry in graph.initializer if entry.data_type == TensorProto.INT8]
    weights = np.concatenate([values.ravel() for values in stored if values.ndim > 1]).astype(int)
    assert most - 2 <= np.abs(weights).max() <= most


class Untraceable(nn.Module):
    """A network whose path depends on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.last = nn.Linear(256, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.first(images)
        if bool(hidden.sum() > -1e9):
            hidden = hidden.relu()
        logits: torch.Tensor = self.last(hidden.flatten(1))
        return logits


def test_networks_that_cannot_be_traced_are_rounded_layer_by_layer(tmp_path: Path) -> None:
    """They still become int8 graphs that answer as the module does."""
    model = Model("untraceable", Untraceable(), {"image": digits().train.inputs[0][:2]})
    made = QuantizationAware(QUICK)(model, digits())
    assert made.lineage[-1].measures["rounded_layers"] == 2.0
    artifact = export_model(made, tmp_path / "int8.onnx")
    assert "QLinearConv" in operators(artifact.path, tmp_path)
    images = digits().validation.inputs[0].numpy()
    expected = made.reference()({"image": images})
    actual = open_session(artifact.path).run({"image": images})["logits"]
    assert np.abs(actual - expected).max() < 0.05 * np.abs(expected).max()


def test_it_comes_once() -> None:
    """A network that is quantized already is refused."""
    once = QuantizationAware(CALIBRATION)(perceptron(), digits())
    with pytest.raises(RecipeError, match="quantized already"):
        QuantizationAware(CALIBRATION)(once, digits())


@given(
    values=arrays.arrays(np.float32, (3, 4), elements=st.floats(-10.0, 10.0, width=32)),
    scale=arrays.arrays(np.float32, 3, elements=st.floats(0.0625, 2.0, width=32)),
    axis=st.sampled_from([0, 1]),
)
def test_quantized_is_what_onnx_defines(values: NDArray[np.float32], scale: NDArray[np.float32], axis: int) -> None:
    """Constants are rounded as onnx's own reference does it."""
    values = values if axis == 0 else values.T.copy()
    zero = np.zeros(3, np.int8)
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], axis=axis)
    reference = onnx.reference.ReferenceEvaluator(
        helper.make_model(
            helper.make_graph(
                [node],
                "quantize",
                [
                    helper.make_tensor_value_info("x", TensorProto.FLOAT, values.shape),
                    helper.make_tensor_value_info("s", TensorProto.FLOAT, [3]),
                    helper.make_tensor_value_info("z", TensorProto.INT8, [3]),
                ],
                [helper.make_tensor_value_info("y", TensorProto.INT8, values.shape)],
            ),
            opset_imports=[helper.make_opsetid("", 17)],
        )
    )
    (expected,) = reference.run(None, {"x": values, "s": scale, "z": zero})
    np.testing.assert_array_equal(expected, quantized(values, scale, zero, axis))


def test_folding_changes_no_answer(tmp_path: Path) -> None:
    """A graph without constants to fold answers as before."""
    artifact = export_model(trained(), tmp_path / "fp32.onnx")
    before = open_session(artifact.path).run({"image": digits().validation.inputs[0].numpy()})["logits"]
    assert fold_int8(artifact.path) == 0
    after = open_session(artifact.path).run({"image": digits().validation.inputs[0].numpy()})["logits"]
    np.testing.assert_array_equal(before, after)
