"""What fails while files are written, and whether a full disk is to blame for it."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from variants import room
from variants.room import LEAST_BYTES, raise_if_full


def raised(error: Exception, during: Exception, *, hidden: bool = False) -> Exception:
    """The error as if it were raised while another was handled; `hidden`: `from None`."""
    error.__context__, error.__suppress_context__ = during, hidden
    return error


def of(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO])
def test_a_fault_of_a_disk_in_passing_is_not_the_reason(number: int, tmp_path: Path) -> None:
    """A read-only cache, say, after which something else went wrong; it is where the error says that it comes of it."""
    raise_if_full(raised(ValueError("unknown operator"), of(number)), tmp_path, tmp_path)
    said = ValueError("cannot be kept")
    said.__cause__ = of(number)
    with pytest.raises(OSError, match="cannot be kept") as full:
        raise_if_full(said, tmp_path, tmp_path)
    assert number == full.value.errno


def test_the_file_that_could_not_be_written_is_named(tmp_path: Path) -> None:
    """It may be one of the family's own, elsewhere."""
    error = OSError(errno.EROFS, os.strerror(errno.EROFS), "/cache/words")
    with pytest.raises(OSError, match=r"Read-only file system \(OSError: .*'/cache/words'\)"):
        raise_if_full(error, tmp_path, tmp_path)


def test_what_an_error_hides_is_not_its_reason(tmp_path: Path) -> None:
    """`raise ... from None` is heeded; without it, want of room is looked for behind the error."""
    raise_if_full(raised(ValueError("unknown operator"), of(errno.ENOSPC), hidden=True), tmp_path, tmp_path)
    with pytest.raises(OSError, match=r"No space left on device \(ValueError: half a file\)"):
        raise_if_full(raised(ValueError("half\na file"), of(errno.ENOSPC)), tmp_path, tmp_path)


def test_errors_that_come_of_each_other_are_gone_through_once(tmp_path: Path) -> None:
    """A circle of causes ends."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise_if_full(first, tmp_path, tmp_path)


def test_a_folder_that_is_gone_does_not_hide_the_error(tmp_path: Path) -> None:
    """Nothing is raised: the reason stays that of the error."""
    raise_if_full(ValueError("unknown operator"), tmp_path / "gone", tmp_path / "gone, too")


def test_the_largest_file_has_to_fit_only_where_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small memory disk for scratch files does not fail what fails for a reason of its own."""
    written, scratch = tmp_path / "written", tmp_path / "scratch"
    written.mkdir()
    scratch.mkdir()
    with (written / "model.onnx").open("wb") as model:
        model.truncate(3 * LEAST_BYTES)
    asked: dict[Path, int] = {}

    def limited(folder: Path, wanted_bytes: int) -> None:
        asked[folder] = wanted_bytes
        if folder == scratch and wanted_bytes > LEAST_BYTES:
            raise of(errno.ENOSPC)

    monkeypatch.setattr(room, "_check_room", limited)
    raise_if_full(ValueError("unknown operator"), written, scratch)
    assert {written: 3 * LEAST_BYTES, scratch: LEAST_BYTES} == asked


def test_a_folder_without_room_ends_it_and_the_error_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads the one line sees what failed, too, in case that it was no fault of the disk."""

    def full(**given: object) -> None:
        raise of(errno.ENOSPC)

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match=r"No space left on device \(ValueError: unknown operator\)"):
        raise_if_full(ValueError("unknown operator"), tmp_path, tmp_path)
