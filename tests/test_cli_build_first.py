"""`pareto serve --build-if-empty`: a program builds, and the same command line in a new one serves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from urllib.request import urlopen

import pytest

from loadtests.servers import free_port
from service import cli
from tests.variants.sides import SIDES

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 120.0
SIGNALLED = """
import os, signal, threading
from service import cli
from service.commands import build
# Whoever starts the tests in the background may have had it ignored, which programs inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

true_execv = os.execv

def execv(*given):
    # To this thread, whatever others there are.
    signal.pthread_kill(threading.main_thread().ident, {number})
    print("begins anew", flush=True)
    true_execv(*given)

os.execv = execv
build.build_one = lambda *given: print("builds", flush=True)
cli.main()
"""


def test_what_was_built_first_is_served_by_a_program_that_built_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same command line runs anew, and finds the family there."""
    built: list[tuple[str, Path]] = []
    ran: list[list[str]] = []

    class Replaced(BaseException):
        pass

    def execv(path: str, arguments: list[str]) -> None:
        ran.append([path, *arguments])
        raise Replaced

    monkeypatch.setattr("service.commands.build.build_one", lambda *given: built.append(given))
    monkeypatch.setattr("os.execv", execv)
    monkeypatch.setattr("sys.orig_argv", ["python", "-m", "service.cli", "serve"])
    with pytest.raises(Replaced):
        cli.run(["serve", "--build-if-empty", "sign", "--models", str(tmp_path), "--port", str(free_port())])
    assert [("sign", tmp_path)] == built
    assert [[sys.executable, sys.executable, "-m", "service.cli", "serve"]] == ran


def test_a_program_that_cannot_be_run_anew_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what to do, for what was built is there; signals are heard as before."""

    def execv(path: str, arguments: list[str]) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("service.commands.build.build_one", lambda *given: None)
    monkeypatch.setattr("os.execv", execv)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert 1 == cli.run(["serve", "--build-if-empty", "sign", "--models", str(tmp_path), "--port", str(free_port())])
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"pareto: {sys.executable}: cannot be run anew, to serve what was built: No such file or directory; "
        "run this command again"
    )
    assert before == signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGTERM, 143, ""), (signal.SIGINT, 130, "pareto: interrupted\n")]
)
def test_a_signal_between_building_and_serving_is_heard(
    number: signal.Signals, code: int, said: str, tmp_path: Path
) -> None:
    """It waits for the new program, which ends before it builds or serves anything."""
    command = [sys.executable, "-c", SIGNALLED.format(number=int(number))]
    serve = ["serve", "--build-if-empty", "sign", "--models", str(tmp_path), "--port", str(free_port())]
    ended = subprocess.run([*command, *serve], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (code, "builds\nbegins anew\n", said) == (ended.returncode, ended.stdout, ended.stderr)


def test_what_was_built_first_is_served(tmp_path: Path) -> None:
    """From a family spec of one's own, in the process that was started: a signal to it ends everything."""
    (tmp_path / "sides.py").write_text(textwrap.dedent(SIDES))
    port = free_port()
    command = [sys.executable, "-m", "service.cli", "serve", "--build-if-empty", str(tmp_path / "sides.py")]
    log = tmp_path / "log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [*command, "--models", str(tmp_path / "models"), "--port", str(port)],
            cwd=ROOT,
            env={**os.environ, "PARETO_CACHE": str(tmp_path / "cache")},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            assert any(line.strip().startswith("stop") for line in process.stdout), log.read_text()
            with urlopen(f"http://127.0.0.1:{port}/v2/models/sides", timeout=LIMIT_S) as answer:
                assert "sides" == json.load(answer)["name"]
        finally:
            process.terminate()
        assert 0 == process.wait(LIMIT_S)
    assert 1 == log.read_text().count("sides: 2 variants in ")
