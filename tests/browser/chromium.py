"""A Chromium for the tests that need no root: one that is there, or Debian's headless shell, unpacked into `.cache`.

Playwright downloads its own builds from a host that many networks do not let through; Debian's package is as good, and
comes from the mirror that the machine is set up with. Some 100 MB are downloaded once and 300 MB kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".cache" / "chromium"
VARIABLE = "CHROMIUM_PATH"
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PACKAGES = ("chromium-headless-shell", "fontconfig-config", "fonts-dejavu-core")
BINARY = "usr/lib/chromium/chromium-headless-shell"
DOWNLOAD_LIMIT_S = 900
FONTS = """<?xml version="1.0"?>
<fontconfig><dir>/usr/share/fonts</dir><dir>{root}/usr/share/fonts</dir><cachedir>{root}/fonts</cachedir></fontconfig>
"""


class NoChromiumError(Exception):
    """There is none and none can be had. The message is one line."""


@dataclass(frozen=True, slots=True)
class Chromium:
    """How to start it."""

    path: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def find_chromium() -> Chromium:
    """The one that `CHROMIUM_PATH` names, one that is installed, or Debian's, unpacked. Raises `NoChromiumError`."""
    if named := os.environ.get(VARIABLE):
        return Chromium(Path(named))
    for name in NAMES:
        if found := shutil.which(name):
            return Chromium(Path(found))
    unpacked = CACHE / "root"
    if not (unpacked / BINARY).is_file():
        _unpack(unpacked)
    return _unpacked(unpacked)


def _unpacked(root: Path) -> Chromium:
    libraries = sorted({str(path.parent) for path in root.rglob("*.so*")})
    fonts = root / "fonts.conf"
    return Chromium(
        root / BINARY, {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries), "FONTCONFIG_FILE": str(fonts)}
    )


def _unpack(root: Path) -> None:
    """Download what this machine lacks of the package and of what it depends on, and unpack it."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise NoChromiumError(
            f"no Chromium is installed, {VARIABLE} names none, and there is no apt-get to get one with"
        )
    beside = CACHE / f"unpacking-{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    downloads, tree = beside / "downloads", beside / "root"
    for folder in (downloads, tree):
        folder.mkdir(parents=True)
    try:
        names, options = _missing_packages()
        _run("apt-get", *options, "download", *names, cwd=downloads)
        for package in sorted(downloads.glob("*.deb")):
            _run("dpkg-deb", "-x", str(package), str(tree))
        (tree / "fonts.conf").write_text(FONTS.format(root=root))
        if not root.exists():
            tree.rename(root)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _missing_packages() -> tuple[list[str], list[str]]:
    """The packages to download, and the options of apt with which they are known.

    Where the machine's lists are empty, as in fresh containers, lists of our own are fetched: that needs no root.
    """
    lists = CACHE / "lists"
    own = [f"-oDir::State::lists={lists}", f"-oDir::Cache={CACHE / 'apt'}", "-oDebug::NoLocking=1"]
    own.append("-oAPT::Sandbox::User=")
    try:
        return _simulated([]), []
    except NoChromiumError:
        for folder in (lists / "partial", CACHE / "apt" / "archives" / "partial"):
            folder.mkdir(parents=True, exist_ok=True)
        _run("apt-get", *own, "update")
        return _simulated(own), own


def _simulated(options: list[str]) -> list[str]:
    said = _run("apt-get", *options, "install", "--simulate", "--no-install-recommends", *PACKAGES)
    return [line.split()[1] for line in said.splitlines() if line.startswith("Inst ")]


def _run(*command: str, cwd: Path | None = None) -> str:
    quiet = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=quiet, capture_output=True, text=True, timeout=DOWNLOAD_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise NoChromiumError(f"{command[0]} took longer than {DOWNLOAD_LIMIT_S} s") from None
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise NoChromiumError(f"Debian's Chromium cannot be had: {command[0]}: {last[-1]}")
    return done.stdout
