"""What benchmarks say of the commit that they measured."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from loadtests.revision import RESULTS, commit_of


def git(root: Path, *arguments: str) -> str:
    """Run git as somebody."""
    who = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(root), *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One commit with a source file and a result."""
    git(tmp_path, "init", "--quiet")
    for name in ("source.py", f"{RESULTS}/runs.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "One")
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "mark"), [(None, ""), ("source.py", "+"), (f"{RESULTS}/runs.json", ""), ("notes.txt", "")]
)
def test_a_plus_says_that_sources_differ(repository: Path, changed: str | None, mark: str) -> None:
    """Results are rewritten by every benchmark, and what git does not track is nobody's code."""
    if changed is not None:
        (repository / changed).write_text("2")
    assert git(repository, "rev-parse", "--short", "HEAD") + mark == commit_of(repository)


def test_without_a_repository_of_its_own_the_commit_is_unknown(repository: Path) -> None:
    """An installed package may lie in somebody else's repository; a new one has no commit."""
    (repository / "new").mkdir()
    git(repository / "new", "init", "--quiet")
    assert ["unknown"] * 3 == [commit_of(repository / name) for name in ("loadtests", "new", "missing")]


def test_without_git_the_commit_is_unknown(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark runs all the same."""
    monkeypatch.setenv("PATH", "")
    assert "unknown" == commit_of(repository)
