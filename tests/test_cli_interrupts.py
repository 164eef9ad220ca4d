"""Ctrl-C while `pareto serve` starts, at whatever moment: one line, 130, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from loadtests.servers import free_port
from service.interrupts import end_at_once, end_at_once_from_here
from tests.service.families import sign_model, write_family
from variants.repository import Repository

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 120.0
# Whoever starts the tests in the background may have had SIGINT ignored, which programs inherit.
HEARS = "import os, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
RUNS = """
import runpy
runpy.run_module("service.cli", run_name="__main__", alter_sys=True)
"""
STARTED = """
from service.interrupts import end_at_once_from_here
end_at_once_from_here()
print("here", flush=True)
"""
WHEN_IT_IMPORTS = """
class Finder:
    def find_spec(self, name, *rest):
        if name == "typer":
            os.killpg(0, signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""
SAID = "pareto: interrupted"
WITHOUT_ERROR_OUTPUT = """
import os, signal
from service.interrupts import end_at_once
signal.signal(signal.SIGINT, end_at_once)
os.close(2)
signal.raise_signal(signal.SIGINT)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one family, `sign`."""
    root = tmp_path_factory.mktemp("models")
    write_family(Repository(root), "sign", {"only": (sign_model(), 0.8)})
    return root


@contextmanager
def starting(models: Path, first: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`pareto serve` in a process group of its own, and its port; it runs `first` before anything else."""
    port = free_port()
    # By its script's name it knows that it is the command.
    script = models.parent / f"{port}" / "pareto"
    script.parent.mkdir()
    script.write_text(f"{HEARS}sys.path.insert(0, {str(ROOT)!r})\n{first}{RUNS}", encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(script), "serve", "--models", str(models), "--port", str(port)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process, port
    finally:
        for left in (*_of(port), process):
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                left.kill()
        process.communicate()


def ends_in_peace(process: subprocess.Popen[str], port: int, *, was_ready: bool = False) -> None:
    """Interrupt the group, as a terminal does, and hold it to what it says and leaves."""
    begun = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT_S)
    # Its log is shown to its end where it was ready, and dropped where it was not.
    code, lines = (0, []) if was_ready or "draining" in err else (130, [SAID])
    assert (code, lines) == (process.returncode, [line for line in err.splitlines() if SAID in line]), err
    assert [] == [word for word in ("Traceback", "Aborted", "KeyboardInterrupt", "killed") if word in out + err], err
    # They have ended; who adopts them may take its time to notice.
    alive = [one for one in begun if _runs(one)]
    assert [] == alive
    assert [] == _of(port)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _of(port: int) -> list[psutil.Process]:
    """Processes with the port in their command line."""
    return [one for one in psutil.process_iter(["cmdline"]) if str(port) in (one.info["cmdline"] or ())]


@pytest.mark.parametrize("moment_s", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 1.8, 2.2])
def test_ctrl_c_at_any_moment_is_one_line(models: Path, moment_s: float) -> None:
    """The moment decides nothing but whether it was ready already."""
    with starting(models, STARTED) as (process, port):
        assert process.stdout is not None
        assert "here\n" == process.stdout.readline()
        # Not to wait for something: moments are what these runs differ by, and each will do.
        with suppress(subprocess.TimeoutExpired):
            process.wait(moment_s)
        ends_in_peace(process, port)


@pytest.mark.parametrize("line", ["Starting production HTTP BentoServer", "initialized"])
def test_ctrl_c_between_two_lines_of_the_server_is_one_line(models: Path, line: str) -> None:
    """When its supervisor begins, and when the process that serves does."""
    with starting(models, STARTED) as (process, port):
        assert process.stderr is not None
        assert any(line in read for read in process.stderr)
        ends_in_peace(process, port)


def test_ctrl_c_while_the_command_is_imported_is_one_line(models: Path) -> None:
    """It hears before its own imports, and no traceback of theirs is seen."""
    with starting(models, WHEN_IT_IMPORTS) as (process, port):
        assert ("", f"{SAID}\n") == process.communicate(timeout=LIMIT_S)
        assert (130, []) == (process.returncode, _of(port))


def test_ctrl_c_once_it_serves_drains_and_is_no_fault(models: Path) -> None:
    """As ever: 0, and the server says what it does."""
    with starting(models, STARTED) as (process, port):
        assert process.stdout is not None
        assert any(read.strip().startswith("stop") for read in process.stdout)
        ends_in_peace(process, port, was_ready=True)


def test_ctrl_c_ends_it_where_nobody_can_be_told() -> None:
    """The error output is closed, as where its terminal is gone."""
    ended = subprocess.run([sys.executable, "-c", WITHOUT_ERROR_OUTPUT], cwd=ROOT, timeout=LIMIT_S, check=False)
    assert 130 == ended.returncode


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("/usr/bin/pareto serve", True),
        ("-u -m service.cli serve", True),
        ("-m pytest /srv/pareto", False),
        ("-m pytest service.cli", False),
        ("/usr/bin/pytest pareto", False),
        ("-c pass --multiprocessing-fork", False),
        ("", False),
    ],
)
def test_who_only_names_the_command_keeps_its_interrupts(
    monkeypatch: pytest.MonkeyPatch, words: str, expected: bool
) -> None:
    """The interpreter runs the command, or something else with its name among the arguments."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, *words.split()])
    try:
        end_at_once_from_here()
        assert expected is (signal.getsignal(signal.SIGINT) is end_at_once)
    finally:
        signal.signal(signal.SIGINT, before)
