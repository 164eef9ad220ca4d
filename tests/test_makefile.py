"""The one-word commands do at once what needs no work before it."""

from __future__ import annotations

import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.servers import free_port

ROOT = Path(__file__).parent.parent
BUILDING = re.findall(r"^([a-z-]+):[^\n]*\n\t@\$\(call built,", (ROOT / "Makefile").read_text(), re.MULTILINE)


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def _commands(target: str, arguments: str) -> str:
    """What make would run for a target."""
    make = ["make", "--dry-run", "--silent", target, f"ARGS={arguments}"]
    return subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@needs_make
@pytest.mark.parametrize("target", BUILDING)
def test_a_benchmark_says_what_it_takes_before_it_builds(target: str) -> None:
    """With `--help` among its arguments no family is built, as one is without."""
    assert "pareto build" in _commands(target, "")
    for asked in ("--help", "--rounds 2 -h"):
        assert "pareto build" not in _commands(target, asked)


def test_no_benchmark_builds_by_another_way() -> None:
    """All that build a family do so by the rule that leaves it out where nobody needs it."""
    assert "bench-grpc" in BUILDING
    assert 2 == (ROOT / "Makefile").read_text().count("/pareto build ")


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One in which nothing is installed: what pip is asked to install is written to a file, and it asks indexes."""
    for outer in ("MAKEFLAGS", "MAKEOVERRIDES", "TORCH_INDEX"):
        monkeypatch.delenv(outer, raising=False)
    python, asked = tmp_path / "bin" / "python", shlex.quote(str(tmp_path / "installed"))
    for folder in (python.parent, tmp_path / "stamps"):
        folder.mkdir()
    (tmp_path / "stamps" / "venv").touch()
    real = shlex.quote(sys.executable)
    python.write_text(f'#!/bin/sh\ncase "$*" in *" index "*) exec {real} "$@";; esac\necho "$*" >>{asked}\n')
    python.chmod(0o755)
    return tmp_path


def _making(environment: Path, *variables: str) -> list[str]:
    return ["make", "--silent", f"VENV={environment}", *variables, f"{environment}/stamps/build"]


@needs_make
@pytest.mark.parametrize("kind", ["http", "path", "file"])
def test_a_wrong_index_for_torch_is_said_before_anything_is_installed(
    environment: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, with what was tried and what to name instead; pip would take torch from elsewhere."""
    monkeypatch.setenv("PIP_RETRIES", "0")
    nowhere = {"http": f"http://127.0.0.1:{free_port()}/cpu/", "path": "/nowhere", "file": "file:///nowhere"}[kind]
    making = _making(environment, f"TORCH_INDEX={nowhere}")
    made = subprocess.run(making, cwd=ROOT, capture_output=True, text=True, check=False)
    said, *rest = made.stderr.splitlines()
    assert said.startswith(f"TORCH_INDEX={nowhere}: {nowhere.rstrip('/')}/torch/ cannot be read: name ")
    # `make[1]` where `make test` runs this.
    assert all(re.match(r"make(\[\d+\])?: \*\*\*", line) for line in rest)
    assert 0 != made.returncode
    assert not (environment / "installed").exists()


@needs_make
def test_an_index_for_torch_is_handed_to_pip(environment: Path) -> None:
    """One that can be read is asked for torch, and for nothing else; without a terminal pip says nothing."""
    index = environment / "index"
    (index / "torch").mkdir(parents=True)
    (index / "torch" / "index.html").write_text("<!DOCTYPE html><html><body></body></html>")
    subprocess.run(_making(environment, f"TORCH_INDEX={index.as_uri()}"), cwd=ROOT, capture_output=True, check=True)
    torch, others = (environment / "installed").read_text().splitlines()
    assert f" install --quiet --quiet --extra-index-url {index.as_uri()} torch==" in torch
    assert " install --quiet --quiet --require-hashes " in others
    assert index.as_uri() not in others


@needs_make
def test_who_waits_at_a_terminal_sees_pip_at_work(environment: Path) -> None:
    """And everybody is told what is installed, before it is."""
    ours, terminal = pty.openpty()
    try:
        subprocess.run(_making(environment), cwd=ROOT, stdout=terminal, stderr=terminal, check=True)
        first, second = os.read(ours, 10_000).decode().splitlines()
    finally:
        os.close(ours)
        os.close(terminal)
    torch, others = (environment / "installed").read_text().splitlines()
    assert "quiet" not in torch + others
    assert first.startswith("installing torch==")
    assert second.startswith("installing the other locked packages")
