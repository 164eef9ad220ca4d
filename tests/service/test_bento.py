"""`bentoml build` packs the code, and what it packed serves a repository from anywhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx

from loadtests.servers import ROOT, Command, running
from tests.service.conftest import sign_body


def versions(lock: Path) -> set[str]:
    return set(re.findall(r"^[\w.-]+==[\w.]+", lock.read_text(), flags=re.MULTILINE))


def test_a_bento_is_built_and_serves(models: Path, tmp_path: Path) -> None:
    """The Bento holds the three packages and no models; served from the store it answers."""
    environment = {"BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-m", "bentoml", "build", "--output", "tag"]
    built = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (packed,) = tmp_path.glob("bentos/pareto*/*/src")
    assert {"router", "variants", "service"} <= {entry.name for entry in packed.iterdir()}
    assert not list(packed.rglob("*.onnx"))
    # What `bentoml containerize` hands to an engine.
    made = packed.parent / "env"
    assert versions(ROOT / "requirements" / "serve.txt") == versions(made / "python" / "requirements.txt")
    assert ["bentoml"] == re.findall(r"^USER (\w+)$", (made / "docker" / "Dockerfile").read_text(), flags=re.MULTILINE)
    arguments = (sys.executable, "-m", "bentoml", "serve", packed.parent.parent.name + ":latest", "--port", "{port}")
    serve = Command("bento", arguments, {**environment, "PARETO_MODELS": str(models), "PARETO_CONFIG": ""})
    with running(serve) as server:
        response = httpx.post(f"{server.url}/v2/models/sign/versions/quick/infer", json=sign_body(1.0), timeout=30.0)
    assert (response.status_code, response.json()["outputs"][0]["data"]) == (200, ["yes"])
