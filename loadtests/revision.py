"""Which commit is measured."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = "loadtests/results"
UNKNOWN = "unknown"


def commit_of(root: Path = ROOT) -> str:
    """The short hash of the commit that is checked out in `root`, with `+` where tracked files differ from it.

    The benchmarks' own results do not count as differences. `unknown` where git is missing, or where `root` is not the
    top of a repository, as that of an installed package.
    """
    try:
        prefix, commit = _git(root, "rev-parse", "--show-prefix", "--short", "HEAD").split("\n")[:2]
        if prefix:
            return UNKNOWN
        changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", f":(exclude){RESULTS}", ".")
    except (OSError, subprocess.SubprocessError, ValueError):
        return UNKNOWN
    return f"{commit}+" if changes else commit


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60.0).stdout
