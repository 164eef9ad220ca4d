from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from variants.debian import DebianPackage, fetch_package, read_matching, read_package
from variants.families.fashion.data import read_idx
from variants.spec import BuildError


def deb(files: dict[str, bytes]) -> bytes:
    """A binary package with these files, as dpkg-deb would write it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"./usr/share/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": data.getvalue()}
    packed = b"!<arch>\n"
    for name, content in members.items():
        packed += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        packed += b"\n" * (len(content) % 2)
    return packed


def package(content: bytes) -> DebianPackage:
    return DebianPackage(
        "no-such-package", "1.0-1", "main/n/no-such-package_1.0-1_all.deb", hashlib.sha256(content).hexdigest()
    )


def test_a_package_comes_from_the_pool_once(tmp_path: Path) -> None:
    """It is downloaded into the cache, and the second time taken from there, without the pool."""
    content = deb({"a.gz": b"first", "b.gz": b"second!"})
    wanted = package(content)
    source = tmp_path / "pool" / wanted.pool_path
    source.parent.mkdir(parents=True)
    source.write_bytes(content)
    pool = (tmp_path / "pool").as_uri()
    path = fetch_package(wanted, tmp_path / "cache", pool)
    source.unlink()
    assert path == fetch_package(wanted, tmp_path / "cache", pool)
    assert {"b.gz": b"second!"} == dict(read_package(path, ["b.gz"]))
    assert [path] == list(path.parent.iterdir())


def test_a_package_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pool sends is compared with the pinned hash; the error is one line that asks the question to ask."""
    monkeypatch.setenv("PATH", str(tmp_path))
    wanted = package(b"what it should be")
    source = tmp_path / "pool" / wanted.pool_path
    source.parent.mkdir(parents=True)
    source.write_bytes(b"something else")
    with pytest.raises(BuildError, match=r"^no-such-package: [^\n]* another SHA-256; [^\n]*is there a network\?$"):
        fetch_package(wanted, tmp_path / "cache", (tmp_path / "pool").as_uri())
    assert [] == list((tmp_path / "cache" / "sources").iterdir())


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"PK not a package", "no ar archive"),
        (b"!<arch>\n", "no data.tar"),
        (deb({"a.gz": b"first"})[:-40], "cannot be read as a Debian package"),
        (deb({"a.gz": b"first"}), "holds no b.gz"),
    ],
    ids=["no archive", "empty", "cut off", "without the file"],
)
def test_a_broken_package_is_one_clear_line(tmp_path: Path, content: bytes, fault: str) -> None:
    """Whatever is wrong with the archive, the error names the file and the fault."""
    path = tmp_path / "x.deb"
    path.write_bytes(content)
    with pytest.raises(BuildError, match=fault):
        read_package(path, ["b.gz"])


def test_files_are_chosen_by_their_path(tmp_path: Path) -> None:
    """Files of one name in two folders are told apart, and only those asked for are read."""
    path = tmp_path / "x.deb"
    path.write_bytes(deb({"one/a.png": b"first", "two/a.png": b"second", "two/b.txt": b"third"}))
    found = read_matching(path, lambda name: name.endswith(".png"))
    assert {"usr/share/one/a.png": b"first", "usr/share/two/a.png": b"second"} == dict(found)


def test_idx_files_are_read_as_they_were_written() -> None:
    """Shape and values come back from the format of MNIST."""
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    header = b"\0\0\x08\x03" + np.array(values.shape, ">i4").tobytes()
    assert np.array_equal(values, read_idx(gzip.compress(header + values.tobytes())))


@pytest.mark.parametrize(
    "content",
    [
        b"plain",
        gzip.compress(b""),
        gzip.compress(b"\0\0\x08\x01\0\0\0\x05abc"),
        gzip.compress(b"\0\0\x0d\x01\0\0\0\x03abc"),
    ],
    ids=["not gzipped", "empty", "too short", "floats"],
)
def test_what_is_no_idx_file_is_refused(content: bytes) -> None:
    """Damaged data is a `BuildError`, not an array of another shape."""
    with pytest.raises(BuildError, match="no gzipped IDX file"):
        read_idx(content)
