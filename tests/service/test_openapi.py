"""The OpenAPI document: what the gateway answers is what it says, and docs/openapi.json is the same without models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from loadtests.servers import Server
from service.openapi.document import MOST_MODELS, Served, openapi_document
from variants.manifest import TensorSpec

ROOT = Path(__file__).parents[2]


def test_the_committed_document_is_that_of_the_code() -> None:
    """`make openapi` writes docs/openapi.json; nobody has forgotten it."""
    assert json.loads((ROOT / "docs" / "openapi.json").read_text()) == openapi_document()


def test_a_replica_names_its_models_and_shows_a_request_that_it_answers(client: httpx.Client) -> None:
    """The example of each model, sent as it is, is answered."""
    document = client.get("/openapi.json").raise_for_status().json()
    assert ["dented", "digits", "sign"] == document["components"]["parameters"]["model"]["schema"]["enum"]
    examples = document["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]["content"]["application/json"]
    for model, example in examples["examples"].items():
        answer = client.post(f"/v2/models/{model}/infer", json=example["value"])
        assert (200, model) == (answer.status_code, answer.json()["model_name"])


@pytest.mark.parametrize("count", [0, 1, MOST_MODELS, MOST_MODELS + 1])
def test_the_document_is_bounded(count: int) -> None:
    """Of more models than `MOST_MODELS` it names none and has no examples."""
    inputs = [TensorSpec(name="text", datatype="BYTES", shape=(-1,))]
    document = openapi_document({f"m{n}": Served(inputs, ["only"]) for n in range(count)})
    shown = count if count <= MOST_MODELS else 0
    assert shown == len(document["components"]["parameters"]["model"]["schema"].get("enum", ()))
    content = document["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]["content"]["application/json"]
    assert shown == len(content.get("examples", ()))


def test_schemathesis_finds_no_answer_that_the_document_does_not_allow(server: Server, tmp_path: Path) -> None:
    """Requests made of the document, sound and broken ones: status, body and headers are as it says, and no 500.

    That every sound request is accepted is not asked: a schema cannot say that data has as many elements as the shape.
    """
    program = Path(sys.executable).with_name("schemathesis")
    flags = ["--max-examples", "15", "--seed", "1", "--checks", "all", "--exclude-checks", "positive_data_acceptance"]
    run = subprocess.run(
        [program, "run", f"{server.url}/openapi.json", *flags, "--no-color"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert 0 == run.returncode, run.stdout[-8000:] + run.stderr[-2000:]
