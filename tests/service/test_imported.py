"""From a model of another library to answers over HTTP: imported without torch, served by the real server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from loadtests.servers import gateway, running
from variants.repository import Repository
from variants.session import open_session

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = [f"digit {number}" for number in range(10)]
VARIANTS = ("fp32", "int8", "int8-static", "fp16")
IMPORT = "import sys; sys.modules['torch'] = None; from service.cli import main; main()"


@pytest.fixture(scope="module")
def digits() -> tuple[Any, Any]:
    images, numbers = load_digits(return_X_y=True)
    return images.astype(np.uint8), numbers


@pytest.fixture(scope="module")
def classifier(digits: tuple[Any, Any]) -> MLPClassifier:
    images, numbers = digits
    return MLPClassifier((64, 48), max_iter=60, tol=0.01, random_state=0).fit(images[:800], numbers[:800])


@pytest.fixture(scope="module")
def models(classifier: MLPClassifier, digits: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository into which `pareto import` put the classifier, in a process that cannot load torch."""
    folder = tmp_path_factory.mktemp("imported")
    images, numbers = digits
    np.savez(folder / "eval.npz", x=images[800:], label=numbers[800:], labels=NAMES)
    write(classifier, folder / "digits.onnx")
    arguments = ["import", "digits.onnx", "--samples", "eval.npz", "--name", "mine", "--models", "models", "--plain"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    command = [sys.executable, "-c", IMPORT, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    assert "mine: 4 variants in models/mine/" in done.stderr
    return folder / "models"


@pytest.fixture(scope="module")
def client(models: Path) -> Iterator[httpx.Client]:
    """A gateway that has all its variants loaded, those that others dominate too."""
    with (
        running(gateway(models, {"PARETO_FAMILIES__MINE__LOAD": ",".join(VARIANTS)})) as server,
        httpx.Client(base_url=server.url, timeout=30.0) as http,
    ):
        yield http


def write(classifier: MLPClassifier, path: Path) -> None:
    """The classifier as ONNX: products, rectifiers and a softmax, as its `predict_proba` computes them."""
    nodes, constants, state = [], [], "pixels"
    last = len(classifier.coefs_) - 1
    for layer, (weights, bias) in enumerate(zip(classifier.coefs_, classifier.intercepts_, strict=True)):
        constants += [numpy_helper.from_array(weights.astype(np.float32), f"w{layer}")]
        constants += [numpy_helper.from_array(bias.astype(np.float32), f"b{layer}")]
        nodes.append(helper.make_node("Gemm", [state, f"w{layer}", f"b{layer}"], [f"sum{layer}"]))
        state = "probabilities" if layer == last else f"state{layer}"
        kind: dict[str, Any] = {"axis": 1} if layer == last else {}
        nodes.append(helper.make_node("Softmax" if kind else "Relu", [f"sum{layer}"], [state], **kind))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 10])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)


def asked(client: httpx.Client, images: Any, variant: str = "") -> dict[str, list[Any]]:
    path = f"/v2/models/mine/versions/{variant}/infer" if variant else "/v2/models/mine/infer"
    tensor = {"name": "pixels", "shape": list(images.shape), "datatype": "UINT8", "data": images.reshape(-1).tolist()}
    answer = client.post(path, json={"inputs": [tensor]}).raise_for_status().json()
    return {output["name"]: output["data"] for output in answer["outputs"]}


def test_the_model_answers_as_where_it_came_from(
    client: httpx.Client, classifier: MLPClassifier, digits: tuple[Any, Any]
) -> None:
    """The fp32 variant gives over HTTP the labels that scikit-learn predicts for the same rows."""
    images = digits[0][800:832]
    assert [NAMES[number] for number in classifier.predict(images)] == asked(client, images, "fp32")["label"]


@pytest.mark.parametrize("variant", VARIANTS[1:])
def test_its_variants_answer_as_their_files(
    variant: str, client: httpx.Client, models: Path, digits: tuple[Any, Any]
) -> None:
    """What the import made of the model is served, with labels by name."""
    images = digits[0][800:832]
    session = open_session(Repository(models).open("mine").file(f"{variant}/model.onnx"))
    expected = session.run({"pixels": images.astype(np.float32)})["logits"].argmax(axis=1)
    assert [NAMES[number] for number in expected] == asked(client, images, variant)["label"]


def test_routing_chooses_among_its_variants(client: httpx.Client, models: Path, digits: tuple[Any, Any]) -> None:
    """A request that names no variant is answered about as accurately; some are loaded where nobody says which."""
    images, numbers = digits[0][800:864], digits[1][800:864]
    right = sum(
        NAMES[number] == label
        for start in range(0, 64, 16)
        for number, label in zip(
            numbers[start : start + 16], asked(client, images[start : start + 16])["label"], strict=True
        )
    )
    assert right > 0.8 * 64
    assert any(variant.load_by_default for variant in Repository(models).open("mine").manifest.variants)
