"""What is slow to make and only read: made by the first worker that asks, and then there for all of a test run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder of that name, which `make` fills once in a run; it is given an empty folder that moves then.

    Others wait for it. Where `make` raises, so does this, and the next to ask tries anew.
    """
    run = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Each worker has a folder in that of the run.
        run = run.parent
    folder = run / f"shared-{name}"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = Path(tempfile.mkdtemp(prefix=f"unfinished-{name}-", dir=run))
            make(unfinished)
            unfinished.rename(folder)
    return folder
