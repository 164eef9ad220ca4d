"""How `pareto serve` begins, goes on and ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from loadtests.servers import free_port
from service.settings import Settings
from service.supervision import server_environment
from tests.console import LIMIT_S, ROOT, failing, made, serving
from tests.service.families import sign_model, write_family
from variants.repository import Repository

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_serve_names_a_port_that_is_taken(capsys: pytest.CaptureFixture[str], sound: Path) -> None:
    """The line has the port and who listens there."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, (line,) = failing(capsys, "serve", "--models", str(sound), "--port", str(port))
    assert 1 == code
    assert line.startswith(f"pareto: port {port} on 127.0.0.1 is in use by ")
    assert line.endswith("choose another with --port N, or PORT=N with make")


def test_serve_says_when_nothing_can_be_served(corrupt: Path) -> None:
    """Where every variant is refused, the command ends with one line of its own instead of waiting."""
    command = [sys.executable, "-m", "service.cli", "serve", "--models", str(corrupt), "--port", str(free_port())]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    (line,) = (line for line in ended.stderr.splitlines() if line.startswith("pareto: "))
    assert 1 == ended.returncode
    assert line.startswith("pareto: nothing to serve: family sign: none of its variants can be loaded (")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_until_a_signal(sound: Path, number: int) -> None:
    """The banner's command gets an answer, a signal ends everything, and the exit code is 0."""
    port = free_port()
    with serving(sound, port) as (process, banner):
        told = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in banner if line.startswith("  ")}
        assert f"http://127.0.0.1:{port}" == told["address"]
        answer = subprocess.run(told["try"], shell=True, capture_output=True, text=True, check=True)
        assert "sign" == json.loads(answer.stdout)["model_name"]
        with urlopen(told["metrics"], timeout=LIMIT_S) as metrics:
            assert 200 == metrics.status
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert 0 == process.wait(LIMIT_S)
        assert [] == [child for child in family if child.is_running()]


def test_serve_does_not_announce_what_it_could_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It serves the other families, and says which one is missing."""
    root = made(tmp_path)
    write_family(Repository(root), "aside", {"only": (sign_model(), 0.8)})
    monkeypatch.setenv("PARETO_FAMILIES", '{"aside": {"load": ["none"]}}')
    with serving(root, free_port()) as (_, banner):
        told = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in banner if line.startswith("  ")}
    assert told["ready"].endswith("serving sign")
    assert "aside cannot be loaded: see the log" == told["but"]
    assert "/v2/models/sign/infer" in told["try"]


@pytest.mark.parametrize("level", ["info", "error"])
def test_serve_names_a_variant_that_was_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    """Who starts it sees that the best variant is broken, however much is logged."""
    root = made(tmp_path)
    (model,) = root.glob("sign/*/better/model.onnx")
    model.write_bytes(model.read_bytes()[:-1])
    monkeypatch.setenv("PARETO_LOG_LEVEL", level)
    with serving(root, free_port()) as (_, banner):
        told = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in banner if line.startswith("  ")}
    assert told["ready"].endswith("serving sign")
    assert "sign serves without better: see the log" == told["but"]


def test_serve_notices_that_the_server_died(sound: Path) -> None:
    """A server that is killed takes the command with it, and none of its processes stays."""
    with serving(sound, free_port()) as (process, _):
        arbiter, *workers = psutil.Process(process.pid).children(recursive=True)
        arbiter.kill()
        assert 128 + signal.SIGKILL == process.wait(LIMIT_S)
        gone, alive = psutil.wait_procs(workers, LIMIT_S)
        assert [] == alive
        assert len(workers) == len(gone)


def test_the_server_sees_these_settings_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that named settings before are replaced; those that name none pass."""
    monkeypatch.setenv("PARETO_PORT", "1")
    monkeypatch.setenv("PARETO_SLOTS", "9")
    monkeypatch.setenv("PARETO_CACHE", "/cache")
    environment = server_environment(Settings(port=5000))
    assert ("5000", "/cache", None) == tuple(
        environment.get(name) for name in ("PARETO_PORT", "PARETO_CACHE", "PARETO_SLOTS")
    )
