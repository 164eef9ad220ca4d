"""Two tiny real families: `tiny` takes four numbers, `words` takes text; both are published into a temporary folder."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tokenizers
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import models, normalizers, pre_tokenizers, processors

from tests.service.families import write_chain
from tests.variants.sides import SIDES
from variants.manifest import FamilyManifest
from variants.repository import Repository, RevisionFolder
from variants.spec import FamilySpec

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "very", "day", "##s"]


def _save(graph: onnx.GraphProto, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def save_linear_model(path: Path, weights: NDArray[np.float32]) -> Path:
    """Save `logits = x @ weights` for x float32 [n, in]."""
    rows, labels = weights.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["logits"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", rows])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", labels])],
        [numpy_helper.from_array(weights, "weights")],
    )
    return _save(graph, path)


def save_word_model(path: Path, scores: NDArray[np.float32]) -> Path:
    """Save a model whose logits are the sums of the `scores` [words, labels] of the tokens of a row."""
    nodes = [
        helper.make_node("Gather", ["scores", "input_ids"], ["each"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["each", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "second"], ["logits"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "words",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "t"]),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["n", "t"]),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", scores.shape[1]])],
        [
            numpy_helper.from_array(scores, "scores"),
            numpy_helper.from_array(np.array([2]), "last"),
            numpy_helper.from_array(np.array([1]), "second"),
        ],
    )
    return _save(graph, path)


def save_word_stages(folder: Path, scores: NDArray[np.float32]) -> None:
    """Save the same model in two stages: `words-0` looks the scores up and leaves them, `words-1` goes on to the sum.

    Both answer with the sum of what they have; the first one has half of it.
    """
    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["n", "t"])
    hidden = helper.make_tensor_value_info("hidden_0", TensorProto.FLOAT, ["n", "t", scores.shape[1]])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", scores.shape[1]])
    constants = [
        numpy_helper.from_array(scores / 2, "scores"),
        numpy_helper.from_array(np.array([2]), "last"),
        numpy_helper.from_array(np.array([1]), "second"),
    ]
    masked_sum = [
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["each", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "second"], ["logits"], keepdims=0),
    ]
    first = [
        helper.make_node("Gather", ["scores", "input_ids"], ["hidden_0"]),
        helper.make_node("Identity", ["hidden_0"], ["each"]),
    ]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "t"])
    _save(
        helper.make_graph([*first, *masked_sum], "words-0", [ids, mask], [hidden, logits], constants),
        folder / "words-0.onnx",
    )
    second = helper.make_node("Add", ["hidden_0", "hidden_0"], ["each"])
    _save(
        helper.make_graph([second, *masked_sum], "words-1", [hidden, mask], [logits], constants[1:]),
        folder / "words-1.onnx",
    )


def save_calibration(path: Path, validation: int, samples: int) -> None:
    """Save a calibration in which everything is predicted to be label 0 with confidence 0.5."""
    np.savez(
        path,
        label=np.zeros(validation, np.int64),
        predicted=np.zeros(validation, np.int64),
        confidence=np.full(validation, 0.5, np.float32),
        sample_predicted=np.zeros(samples, np.int64),
        sample_confidence=np.full(samples, 0.5, np.float32),
    )


def _variant(name: str, quality: float, **changes: Any) -> dict[str, Any]:
    quality_fields = dict.fromkeys(("value", "precision", "recall", "f1"), quality)
    return {
        "name": name,
        "recipe": "none",
        "lineage": ("by hand",),
        "model_file": f"{name}/model.onnx",
        "calibration_file": f"{name}/calibration.npz",
        "quality": {**quality_fields, "standard_error": 0.01, "samples": 40},
        "invariance": {"invariant": True, "label_flips": 0.0, "max_probability_delta": 0.0, "compared_rows": 40},
        "parameters": 12,
        "size_bytes": 100,
        "on_frontier": True,
        "load_by_default": True,
        **changes,
    }


@pytest.fixture
def tiny_fields() -> dict[str, Any]:
    """The manifest of `tiny` as plain fields; its variants share the stage `trunk`."""
    return {
        "name": "tiny",
        "revision": "1",
        "description": "four numbers in, one of three labels out",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "label", "datatype": "BYTES", "shape": [-1]}],
        "labels": ["a", "b", "c"],
        "preparation": {"kind": "tensor", "mean": 1.0, "scale": 2.0},
        "max_batch": 8,
        "default_slo_s": 0.1,
        "variants": [_variant("small", 0.7, stages=["trunk"]), _variant("big", 0.9, stages=["trunk"])],
        "stages": [{"name": "trunk", "file": "stages/trunk.onnx"}],
        "created": "2026-01-01T00:00:00Z",
    }


@pytest.fixture
def words_fields() -> dict[str, Any]:
    """The manifest of `words` as plain fields."""
    return {
        "name": "words",
        "revision": "1",
        "description": "is it good or bad?",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "label", "datatype": "BYTES", "shape": [-1]}],
        "labels": ["bad", "good"],
        "preparation": {"kind": "wordpiece", "tokenizer_file": "tokenizer.json", "max_tokens": 8},
        "sizes": [4, 8],
        "default_slo_s": 0.1,
        "variants": [_variant("sum", 0.8)],
        "created": "2026-01-01T00:00:00Z",
    }


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models")


@pytest.fixture
def sides(tmp_path: Path) -> FamilySpec:
    """A family in one file, small enough to be built in a test."""
    from variants.families import load_family

    path = tmp_path / "sides.py"
    path.write_text(textwrap.dedent(SIDES))
    return load_family(str(path))


@pytest.fixture
def publish_tiny(repository: Repository, tiny_fields: dict[str, Any]) -> Callable[[str], RevisionFolder]:
    """Publishes `tiny` as the named revision."""

    def publish(revision: str) -> RevisionFolder:
        random = np.random.default_rng(0)
        with repository.new_staging("tiny") as staging:
            for name in ("small/model.onnx", "big/model.onnx", "stages/trunk.onnx"):
                save_linear_model(staging / name, random.normal(size=(4, 3)).astype(np.float32))
            for name in ("small", "big"):
                save_calibration(staging / name / "calibration.npz", validation=10, samples=20)
            rows = random.normal(size=(20, 4)).astype(np.float32)
            np.savez(staging / "samples.npz", x=rows, label=np.zeros(20, np.int64))
            return repository.publish(FamilyManifest.model_validate({**tiny_fields, "revision": revision}), staging)

    return publish


@pytest.fixture
def tiny(publish_tiny: Callable[[str], RevisionFolder]) -> RevisionFolder:
    return publish_tiny("1")


@pytest.fixture
def words(repository: Repository, words_fields: dict[str, Any]) -> RevisionFolder:
    return publish_words(repository, words_fields)


@pytest.fixture
def chained_words(repository: Repository, words_fields: dict[str, Any]) -> RevisionFolder:
    """`words` as a chain of two stages, with a variant after each of them and one without a chain."""
    stages = ["words-0", "words-1"]
    words_fields["variants"] = [
        _variant("half", 0.7, stages=stages[:1]),
        _variant("sum", 0.8, stages=stages),
        _variant("other", 0.75),
    ]
    words_fields["stages"] = [{"name": name, "file": f"stages/{name}.onnx"} for name in stages]
    return publish_words(repository, words_fields)


def publish_words(repository: Repository, fields: dict[str, Any]) -> RevisionFolder:
    tokenizer = tokenizers.Tokenizer(
        models.WordPiece({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # What tokenizers often bring along and a gateway must undo: padding to a fixed length.
    tokenizer.enable_padding(length=16, pad_id=0)
    scores = np.zeros((len(WORDS), 2), np.float32)
    scores[WORDS.index("good"), 1] = scores[WORDS.index("bad"), 0] = 2.0
    texts = ["good day", "bad day", "very very very bad days", "very good", "day"] * 4
    with repository.new_staging("words") as staging:
        for variant in fields["variants"]:
            factor = np.float32(0.5 if variant["name"] == "half" else 1.0)
            save_word_model(staging / variant["name"] / "model.onnx", scores * factor)
            save_calibration(staging / variant["name"] / "calibration.npz", validation=5, samples=len(texts))
        if fields.get("stages"):
            save_word_stages(staging / "stages", scores)
        tokenizer.save(str(staging / "tokenizer.json"))
        np.savez(staging / "samples.npz", text=np.array(texts), label=np.zeros(len(texts), np.int64))
        return repository.publish(FamilyManifest.model_validate(fields), staging)


@pytest.fixture
def chain(tmp_path: Path) -> RevisionFolder:
    """Two exits of one network; the quick one is right where it is sure."""
    write_chain(Repository(tmp_path), "chain")
    return Repository(tmp_path).open("chain")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Steps of a millisecond lose more at the barriers than a second core gives."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
