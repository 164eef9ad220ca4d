"""Data out of Debian packages: downloaded once, checked by hash, kept in the cache, read as archives.

Nothing is installed and no root is needed. A binary package is an `ar` archive with a tar archive of its files inside:
deb(5).
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from variants.atomic import sha256_of
from variants.sources import TIMEOUT_S
from variants.spec import BuildError

POOL = "https://deb.debian.org/debian/pool"

_MAGIC = b"!<arch>\n"
_HEADER_BYTES = 60
_PATIENCE_S = 30.0
"""How long a pool may stay silent before the next way is tried."""


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """One version of a binary package: where the pool has it, and the SHA-256 of the file."""

    name: str
    version: str
    pool_path: str
    sha256: str


def fetch_package(package: DebianPackage, cache: Path, pool: str = POOL) -> Path:
    """Return the file of a package, downloaded unless the cache holds it already.

    It is taken from the pool (the URL before `pool_path`) or, where that cannot be reached and there is an `apt-get`,
    from the mirror that the machine is set up with. Raises `BuildError`.
    """
    folder = cache / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / Path(package.pool_path).name
    if kept.is_file() and sha256_of(kept) == package.sha256:
        return kept
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
        faults = []
        for source, download in (("the pool", _from_pool), ("apt-get", _with_apt)):
            try:
                archive = download(package, Path(scratch), pool)
            except (OSError, subprocess.SubprocessError) as error:
                faults.append(" ".join(str(error).split()) or type(error).__name__)
                continue
            if sha256_of(archive) == package.sha256:
                return archive.replace(kept)
            faults.append(f"what {source} sent has another SHA-256")
    raise BuildError(f"{package.name}: cannot be downloaded ({'; '.join(faults)}); is there a network?")


def read_package(path: Path, names: Sequence[str]) -> Mapping[str, bytes]:
    """Return the contents of the named files of a package, by name without folders.

    Raises `BuildError` where the file is no Debian package or holds no file of such a name.
    """
    found = {Path(member).name: content for member, content in _read(path, lambda name: Path(name).name in names)}
    if missing := [name for name in names if name not in found]:
        raise BuildError(f"{path}: the package holds no {missing[0]}")
    return found


def read_matching(path: Path, wanted: Callable[[str], bool]) -> Mapping[str, bytes]:
    """Return the contents of those files of a package whose path in it, without `./` before it, is `wanted`, by path.

    Raises `BuildError` where the file is no Debian package.
    """
    return dict(_read(path, wanted))


def _read(path: Path, wanted: Callable[[str], bool]) -> list[tuple[str, bytes]]:
    try:
        with tarfile.open(fileobj=io.BytesIO(_data_archive(path.read_bytes()))) as data:
            return [
                (name, stream.read())
                for member in data
                if wanted(name := member.name.removeprefix("./")) and (stream := data.extractfile(member)) is not None
            ]
    except (OSError, ValueError, tarfile.TarError) as error:
        raise BuildError(
            f"{path}: cannot be read as a Debian package ({error}); delete it to download it anew"
        ) from error


def _data_archive(package: bytes) -> bytes:
    """Return the member `data.tar.*` of an `ar` archive. Raises `ValueError` where there is none."""
    if not package.startswith(_MAGIC):
        raise ValueError("it is no ar archive")
    position = len(_MAGIC)
    while position + _HEADER_BYTES <= len(package):
        header = package[position : position + _HEADER_BYTES]
        name, size = header[:16].decode("ascii").strip().rstrip("/"), int(header[48:58])
        position += _HEADER_BYTES
        if name.startswith("data.tar"):
            if position + size > len(package):
                raise ValueError("it is cut off")
            return package[position : position + size]
        position += size + size % 2
    raise ValueError("it has no data.tar")


def _from_pool(package: DebianPackage, folder: Path, pool: str) -> Path:
    path = folder / "from-pool.deb"
    url = f"{pool}/{package.pool_path}"
    with urllib.request.urlopen(url, timeout=_PATIENCE_S) as answer, path.open("wb") as file:  # noqa: S310 - hashed
        shutil.copyfileobj(answer, file)
    return path


def _with_apt(package: DebianPackage, folder: Path, pool: str) -> Path:
    command = ["apt-get", "--quiet", "--quiet", "download", f"{package.name}={package.version}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    archive = next(folder.glob(f"{package.name}_*.deb"), None)
    if archive is None:
        raise FileNotFoundError(f"apt-get: {(done.stderr.splitlines() or [f'exit status {done.returncode}'])[-1]}")
    return archive
