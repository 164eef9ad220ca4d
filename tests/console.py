"""The console script in tests: repositories that it is given, and what it prints."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service import cli
from tests.service.families import sign_model, write_family
from variants.repository import Repository

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 60.0


def made(root: Path) -> Path:
    write_family(Repository(root), "sign", {"quick": (sign_model(), 0.8), "better": (sign_model(1), 0.9)})
    return root


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    """Exit code and the lines on the error output of a command that says nothing else."""
    code = cli.run(arguments)
    printed = capsys.readouterr()
    assert printed.out == ""
    return code, printed.err.splitlines()


@contextmanager
def serving(models: Path, port: int) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """`pareto serve` in a process of its own, and the lines it had printed when it was ready."""
    command = [sys.executable, "-m", "service.cli", "serve", "--models", str(models), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.strip().startswith("stop"):
                break
        yield process, lines
    finally:
        process.terminate()
        process.wait(LIMIT_S)
