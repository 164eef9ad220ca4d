"""Foreign models: what is understood, what is refused, and what becomes of them in the repository."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.variants.graphs import logits, normal, save_cnn, save_graph, save_mlp, save_samples
from variants.build import build_family
from variants.importing.answer import Kind, answer_of
from variants.importing.family import RECIPES, ImportOptions, imported_family
from variants.importing.model import read_model
from variants.importing.rows import read_samples
from variants.macs import count_macs
from variants.progress import LineDisplay
from variants.recipes.artifact import Artifact
from variants.repository import Repository, RevisionFolder

ROWS = normal(200, 32, seed=9)
PROBABILITY = 1e-6


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models")


def imported(
    repository: Repository, model: Path, samples: Path, options: ImportOptions | None = None
) -> RevisionFolder:
    spec = imported_family("mine", model, samples, options)
    display = LineDisplay("import", io.StringIO())
    return build_family(spec, repository, display=display, cache=repository.root / "cache", jobs=1)


def softmax(values: NDArray[np.float32]) -> NDArray[np.float32]:
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    answer: NDArray[np.float32] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return answer


def test_labelled_rows_give_accuracies(repository: Repository, tmp_path: Path) -> None:
    """With labels every variant's accuracy is measured, confidence is calibrated, and the names are the labels'."""
    model = save_mlp(tmp_path / "mlp.onnx")
    label = logits(model, ROWS).argmax(axis=1)
    label[::10] = (label[::10] + 1) % 4
    revision = imported(
        repository, model.path, save_samples(tmp_path, x=ROWS, label=label, labels=["a", "b", "c", "d"])
    )
    manifest = revision.manifest
    assert ("a", "b", "c", "d") == manifest.labels
    assert {"fp32", "int8", "int8-static", "fp16"} == {variant.name for variant in manifest.variants}
    for variant in manifest.variants:
        assert "accuracy" == variant.quality.metric
        assert 0.8 < variant.quality.value < 1.0
        assert 100 == variant.quality.samples
        assert variant.invariance.invariant
        assert variant.lineage[0] == "mlp.onnx"
    assert 1.0 != manifest.variant("fp32").temperature
    assert manifest.build["logit_difference.fp32"] == 0.0
    assert {} == revision.verify()


def test_the_lineage_tells_what_was_done_to_the_file(repository: Repository, tmp_path: Path) -> None:
    """A softmax that was cut off is a step; recipes come after it."""
    model = save_mlp(tmp_path / "mlp.onnx", last="Softmax").path
    manifest = imported(repository, model, save_samples(tmp_path, x=ROWS), ImportOptions(recipes=("fp16",))).manifest
    assert ("mlp.onnx", "softmax cut off", "slimmed", "weights in fp16") == manifest.variant("fp16").lineage


def test_rows_without_labels_give_agreement(repository: Repository, tmp_path: Path) -> None:
    """Without labels the model itself is right by definition, the others as often as they agree; nothing is scaled."""
    revision = imported(repository, save_mlp(tmp_path / "mlp.onnx").path, save_samples(tmp_path, x=ROWS))
    assert ("0", "1", "2", "3") == revision.manifest.labels
    for variant in revision.manifest.variants:
        assert ("agreement", 1.0) == (variant.quality.metric, variant.temperature)
        assert variant.quality.value > 0.9
    assert 1.0 == revision.manifest.variant("fp32").quality.value


def test_every_recipe_can_be_asked_for(repository: Repository, tmp_path: Path) -> None:
    """All recipes apply to a plain network; a convolution's int8 is static, and what does not apply is left out."""
    options = ImportOptions(recipes=tuple(RECIPES))
    revision = imported(repository, save_mlp(tmp_path / "mlp.onnx").path, save_samples(tmp_path, x=ROWS), options)
    assert {"fp32", *RECIPES} == {variant.name for variant in revision.manifest.variants}
    images = normal(64, 1, 8, 8)
    revision = imported(repository, save_cnn(tmp_path / "cnn.onnx").path, save_samples(tmp_path, x=images))
    assert {"fp32", "int8-static", "fp16"} == {variant.name for variant in revision.manifest.variants}
    assert "no MatMul, Gemm or Gather" in str(revision.manifest.build["left_out.int8"])


@pytest.mark.parametrize(("last", "kind"), [("", Kind.LOGITS), ("Softmax", Kind.SOFTMAX), ("LogSoftmax", Kind.LOGITS)])
def test_a_softmax_is_cut_off(last: str, kind: Kind, tmp_path: Path) -> None:
    """What is served gives logits whose softmax is the probabilities that the foreign model gave."""
    plain = save_mlp(tmp_path / "plain.onnx")
    foreign = read_model(save_mlp(tmp_path / "foreign.onnx", last=last).path)
    answer = answer_of(foreign, ROWS)
    assert (kind, 4) == (answer.kind, answer.classes)
    onnx.save(answer.served((32,)), tmp_path / "served.onnx")
    served = logits(Artifact(tmp_path / "served.onnx", "", (), 0), ROWS)
    np.testing.assert_allclose(softmax(served), softmax(logits(plain, ROWS)), atol=PROBABILITY)
    np.testing.assert_array_equal(answer.reference()({"x": ROWS}), served)
    assert "Softmax" not in {node.op_type for node in answer.served((32,)).graph.node}


def test_other_probabilities_become_their_logarithm(tmp_path: Path) -> None:
    """Probabilities that no softmax made, zeros among them, are given back by the softmax of what is served."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["raw"]),
        helper.make_node("Relu", ["raw"], ["positive"]),
        helper.make_node("Add", ["positive", "some"], ["more"]),
        helper.make_node("ReduceSum", ["more", "axis"], ["sum"], keepdims=1),
        helper.make_node("Div", ["more", "sum"], ["logits"]),
    ]
    constants = {"w": normal(32, 4), "some": np.array([0.1, 0, 0, 0], np.float32), "axis": np.array([1])}
    source = save_graph(tmp_path / "source.onnx", nodes, constants)
    answer = answer_of(read_model(source.path), ROWS)
    assert Kind.PROBABILITIES == answer.kind
    onnx.save(answer.served((32,)), tmp_path / "served.onnx")
    served = logits(Artifact(tmp_path / "served.onnx", "", (), 0), ROWS)
    assert (logits(source, ROWS) == 0).any()
    np.testing.assert_allclose(softmax(served), logits(source, ROWS), atol=PROBABILITY)
    np.testing.assert_allclose(answer.reference()({"x": ROWS}), served, atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "rows_type", "datatype"),
    [
        (TensorProto.UINT8, "uint8", "UINT8"),
        (TensorProto.FLOAT, "uint8", "UINT8"),
        (TensorProto.FLOAT, "float64", "FP32"),
        (TensorProto.INT64, "int32", "INT32"),
        (TensorProto.DOUBLE, "float32", "FP32"),
        (TensorProto.FLOAT16, "float16", "FP16"),
    ],
)
def test_inputs_of_every_type(
    model_type: int, rows_type: str, datatype: str, repository: Repository, tmp_path: Path
) -> None:
    """Requests send what the file holds, the model gets its own type, and the answers are those of the float form."""
    rows = np.random.default_rng(0).integers(0, 5, size=(80, 32)).astype(rows_type)
    model = save_mlp(tmp_path / "mlp.onnx", x_type=model_type)
    revision = imported(repository, model.path, save_samples(tmp_path, x=rows), ImportOptions(recipes=("int8",)))
    (tensor,) = revision.manifest.inputs
    assert (datatype, (-1, 32)) == (tensor.datatype, tensor.shape)
    expected = logits(save_mlp(tmp_path / "plain.onnx"), rows.astype(np.float32)).argmax(axis=1)
    served = logits(Artifact(revision.file("fp32/model.onnx"), "", (), 0), rows.astype(np.float32))
    assert np.array_equal(expected, served.argmax(axis=1))
    assert {"fp32", "int8"} == {variant.name for variant in revision.manifest.variants}


def test_models_in_fp16_may_round_differently(repository: Repository, tmp_path: Path) -> None:
    """A graph that computes in 16 bits answers a little otherwise once it is fused; it is served nonetheless."""
    source = save_mlp(tmp_path / "half.onnx")
    model = onnx.load(source.path)
    for tensor in model.graph.initializer:
        # Logits of up to a hundred: one step of fp16 is then 0.06.
        values = numpy_helper.to_array(tensor) * (50 if tensor.name == "head" else 1)
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, source.path)
    assert read_model(source.path).is_half
    manifest = imported(repository, source.path, save_samples(tmp_path, x=ROWS)).manifest
    assert 1.0 == manifest.variant("fp32").quality.value
    assert float(manifest.build["logit_difference.fp32"]) > 1e-3


def test_weights_beside_the_file_are_told_by_their_hash(tmp_path: Path) -> None:
    """Another file of weights is another model: the source names both files with what is in them."""
    model = save_mlp(tmp_path / "mlp.onnx").path
    samples = save_samples(tmp_path, x=ROWS)
    content = onnx.load(model)
    onnx.save(content, model, save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = imported_family("mine", model, samples).source
    weights = bytearray((tmp_path / "weights.bin").read_bytes())
    weights[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(weights)
    assert before != imported_family("mine", model, samples).source
    assert re.fullmatch(r"mlp.onnx, SHA-256 \w{64}; weights.bin, SHA-256 \w{64}; rows: samples.npz", before)


def test_functions_of_the_model_s_own_are_unfolded(repository: Repository, tmp_path: Path) -> None:
    """Products within a function of the file are seen by recipes and counted as any other."""
    source = save_mlp(tmp_path / "mlp.onnx")
    model = onnx.load(source.path)
    nodes = list(model.graph.node)
    inputs = ["x", *(tensor.name for tensor in model.graph.initializer)]
    model.functions.append(
        helper.make_function("mine", "Whole", inputs, ["logits"], nodes, [helper.make_opsetid("", 17)])
    )
    model.opset_import.append(helper.make_opsetid("mine", 1))
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Whole", inputs, ["logits"], domain="mine"))
    onnx.save(model, source.path)
    assert 32 * 64 + 64 * 4 == count_macs(source.path, {"x": ROWS[:1]})
    manifest = imported(repository, source.path, save_samples(tmp_path, x=ROWS)).manifest
    assert {"fp32", "int8", "int8-static", "fp16"} == {variant.name for variant in manifest.variants}


def test_rows_are_scaled_as_said(repository: Repository, tmp_path: Path) -> None:
    """`mean` and `scale` travel with the family, and the model is measured on what they make of the rows."""
    model = save_mlp(tmp_path / "mlp.onnx")
    label = logits(model, ROWS).argmax(axis=1)
    samples = save_samples(tmp_path, x=ROWS * 8 + 3, label=label)
    options = ImportOptions(recipes=(), mean=3.0, scale=8.0, slo_s=0.25, description="scaled")
    manifest = imported(repository, model.path, samples, options).manifest
    assert (3.0, 8.0) == (manifest.preparation.mean, manifest.preparation.scale)  # type: ignore[union-attr]  # of tensors
    assert (0.25, "scaled") == (manifest.default_slo_s, manifest.description)
    assert manifest.variant("fp32").quality.value > 0.99


def test_old_models_are_converted(repository: Repository, tmp_path: Path) -> None:
    """A model of opset 9 whose constants are inputs, too, is imported with all its variants."""
    source = save_mlp(tmp_path / "old.onnx", opset=9)
    model = onnx.load(source.path)
    model.ir_version = 3
    model.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in model.graph.initializer
    )
    onnx.save(model, source.path)
    revision = imported(repository, source.path, save_samples(tmp_path, x=ROWS))
    assert {"fp32", "int8", "int8-static", "fp16"} == {variant.name for variant in revision.manifest.variants}


def test_a_tensor_that_is_called_logits_inside(tmp_path: Path) -> None:
    """An inner tensor with the name that the served output has is not mistaken for it."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["logits"]),
        helper.make_node("Neg", ["logits"], ["answer"]),
    ]
    source = save_graph(tmp_path / "source.onnx", nodes, {"w": normal(32, 4)}, outputs={"answer": ("n", 4)})
    onnx.save(answer_of(read_model(source.path), ROWS).served((32,)), tmp_path / "served.onnx")
    served = logits(Artifact(tmp_path / "served.onnx", "", (), 0), ROWS)
    np.testing.assert_allclose(served, -(ROWS @ normal(32, 4)), atol=1e-4)


def test_rows_may_be_named_as_the_input(tmp_path: Path) -> None:
    """The array of rows is called `x` or as the model's input, which wins."""
    path = save_samples(tmp_path, image=ROWS, x=ROWS[:50])
    assert 200 == len(read_samples(path, "image").rows)
    assert 200 == len(read_samples(save_samples(tmp_path, x=ROWS), "image").rows)


def test_dimensions_of_any_length_are_those_of_the_rows(repository: Repository, tmp_path: Path) -> None:
    """A model that takes rows of any width is served for the width of its samples."""
    nodes = [helper.make_node("ReduceMax", ["x"], ["most"], axes=[1], keepdims=1)]
    nodes.append(helper.make_node("MatMul", ["most", "w"], ["logits"]))
    source = save_graph(tmp_path / "any.onnx", nodes, {"w": normal(1, 4)}, x=("n", "width"))
    revision = imported(repository, source.path, save_samples(tmp_path, x=ROWS), ImportOptions(recipes=()))
    assert (-1, 32) == revision.manifest.inputs[0].shape


def test_a_forest_is_a_model_too(repository: Repository, tmp_path: Path) -> None:
    """Operators that no recipe knows, here a decision tree's, are served as they are."""
    tree = helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.0, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        class_treeids=[0, 0, 0, 0],
        class_nodeids=[1, 1, 2, 2],
        class_ids=[0, 1, 0, 1],
        class_weights=[0.9, 0.1, 0.2, 0.8],
        classlabels_int64s=[0, 1],
        post_transform="NONE",
    )
    graph = helper.make_graph(
        [tree],
        "tree",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2]),
        ],
        [numpy_helper.from_array(np.zeros(1, np.float32), "unused")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "tree.onnx")
    label = (ROWS[:, 0] > 0).astype(int)
    revision = imported(repository, tmp_path / "tree.onnx", save_samples(tmp_path, x=ROWS, label=label))
    assert ["fp32"] == [variant.name for variant in revision.manifest.variants]
    assert 1.0 == revision.manifest.variant("fp32").quality.value
