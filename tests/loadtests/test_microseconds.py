"""Where a request's microseconds go: what cannot be measured is said, by the process that waits for the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.service.families import sign_model, write_family
from variants.repository import Repository


def test_a_family_that_cannot_be_served_is_one_line(tmp_path: Path) -> None:
    """The process that measures ends, and so does the one that waits for it, with what is wrong."""
    write_family(Repository(tmp_path), "sign", {"plain": (sign_model(), 0.8)})
    for model in tmp_path.rglob("*.onnx"):
        model.write_bytes(b"not a model")
    command = (sys.executable, "-m", "loadtests.microseconds", "--models", str(tmp_path), "--family", "sign")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert 1 == done.returncode
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("bench-profile: family sign: ")
