"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from variants.atomic import replacing


def test_what_a_tool_wrote_is_on_the_disk_before_it_takes_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk cannot keep it, the file is as it was, and nothing stays behind."""
    path = tmp_path / "weights"
    path.write_bytes(b"old")
    found: list[tuple[bytes, bytes]] = []
    trouble: list[OSError] = []

    def fsync(descriptor: int) -> None:
        found.append((path.read_bytes(), os.pread(descriptor, 10, 0)))
        for error in trouble:
            raise error

    monkeypatch.setattr(os, "fsync", fsync)
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
    assert ([(b"old", b"new")], b"new") == (found, path.read_bytes())
    trouble.append(OSError(errno.EIO, os.strerror(errno.EIO)))
    with pytest.raises(OSError, match="Input/output error"), replacing(path) as temporary:
        temporary.write_bytes(b"newer")
    assert ([path], b"new") == (list(tmp_path.iterdir()), path.read_bytes())
