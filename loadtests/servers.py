"""Real servers as child processes: started on a free port, pinned, waited for, frozen, stopped.

How the gateway and its peers are started stands here and nowhere else.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from random import SystemRandom
from typing import IO, NamedTuple

import psutil

from loadtests.fetch import fetch
from loadtests.peers.model import FAMILY, MODELS, VARIANT

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT_S = 180.0
STOP_LIMIT_S = 20.0
LOG_LINES = 5
PORTS = range(20000, 32000)
"""Free ports are looked for here: below those that Linux hands out by itself."""
_QUIET = {"BENTOML_DO_NOT_TRACK": "True"}


class ServerError(Exception):
    """A server did not start. The message is one line, followed by the end of what the server wrote."""


class Host(NamedTuple):
    """Where a server runs: the address it listens on, and the command that starts its arguments as a command there."""

    address: str
    enter: tuple[str, ...] = ()


HERE = Host("127.0.0.1")


@dataclass(frozen=True, slots=True)
class Command:
    """How to start one server. `{host}` and `{port}` in the arguments stand for its address and port."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_path: str = "/v2/health/ready"


def gateway(models: Path, environment: Mapping[str, str] | None = None) -> Command:
    """The gateway as `pareto serve` starts it; settings travel as `PARETO_...` variables."""
    arguments = (
        sys.executable,
        "-m",
        "bentoml",
        "serve",
        "service.bento:svc",
        "--host",
        "{host}",
        "--port",
        "{port}",
        "--timeout-keep-alive",
        "75",
    )
    settings = {"PARETO_MODELS": str(models.resolve()), **(environment or {})}
    return Command("gateway", arguments, {**_QUIET, **settings})


def bare(models: Path, family: str, variant: str) -> Command:
    """Starlette and onnxruntime in one event loop."""
    uvicorn = "uvicorn loadtests.peers.bare:app --loop uvloop --http httptools --no-access-log --log-level warning"
    arguments = (sys.executable, "-m", *uvicorn.split(), "--port", "{port}")
    return Command("bare", arguments, _peer_model(models, family, variant))


def bento_batchable(models: Path, family: str, variant: str) -> Command:
    """Stock BentoML with adaptive batching."""
    arguments = (sys.executable, "-m", "bentoml", "serve", "loadtests.peers.bento_batchable:Batchable")
    environment = {**_QUIET, **_peer_model(models, family, variant)}
    return Command("bentoml", (*arguments, "--host", "127.0.0.1", "--port", "{port}"), environment, "/readyz")


class Server:
    """A running server. `url` has no slash at its end."""

    def __init__(
        self, command: Command, process: subprocess.Popen[bytes], port: int, log: IO[bytes], host: Host = HERE
    ) -> None:
        self.name = command.name
        self._ready_path = command.ready_path
        self._log = log
        self.port = port
        self.address = host.address
        self.url = f"http://{host.address}:{port}"
        self._process = process

    def tree(self) -> list[psutil.Process]:
        """The server's processes that live, parent first."""
        try:
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def check(self) -> None:
        """Raise `ServerError` with the end of its log where the server has ended by itself."""
        if self._process.poll() is not None:
            raise ServerError(f"{self.name} ended with exit code {self._process.returncode}{_end_of(self._log)}")

    def wait_until_ready(self) -> None:
        """Raises `ServerError` where it ends early or is not ready within `START_LIMIT_S`."""
        limit_s = time.monotonic() + START_LIMIT_S
        while True:
            try:
                status = fetch(self.url + self._ready_path, timeout_s=5.0).status
                if status == HTTPStatus.OK:
                    return
                fault = f"answers {status} on {self._ready_path}"
            except OSError as error:
                fault = f"does not answer on {self._ready_path} ({error})"
            self.check()
            if time.monotonic() > limit_s:
                raise ServerError(f"{self.name} {fault} after {START_LIMIT_S:g} s{_end_of(self._log)}")
            time.sleep(0.1)

    def said(self) -> str:
        """Everything that its processes have written so far."""
        # Not read from the beginning: they write where this file stands.
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def loop_s(self) -> float:
        """Processor seconds that its event loops have taken so far: the first threads of its processes."""
        threads = [(process.pid, thread) for process in self.tree() for thread in process.threads()]
        return float(sum(thread.user_time + thread.system_time for pid, thread in threads if thread.id == pid))

    def processor_s(self) -> float:
        """Processor seconds that all its processes have taken so far."""
        return float(sum(sum(process.cpu_times()[:2]) for process in self.tree()))

    def resident_bytes(self) -> int:
        """Resident memory of all its processes."""
        return sum(process.memory_info().rss for process in self.tree())

    def freeze(self) -> None:
        """Stop all its processes where they stand, so that what it does when idle disturbs nobody."""
        for process in self.tree():
            process.suspend()

    def thaw(self) -> None:
        """Let a frozen server go on."""
        for process in reversed(self.tree()):
            process.resume()

    def stop(self) -> int:
        """Ask it to end, and make it end after `STOP_LIMIT_S`.

        Returns its exit code, negative where a signal ended it.
        """
        self.thaw()
        tree = self.tree()
        self._process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(tree, timeout=STOP_LIMIT_S)
        for process in alive:
            process.kill()
        self._log.close()
        return self._process.wait()

    def kill(self) -> None:
        """End all its processes at once, without any chance to finish something."""
        for process in self.tree():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()


def start(command: Command, cores: Sequence[int] = (), host: Host = HERE, port: int | None = None) -> Server:
    """Start a server, all its processes on these cores (any, where none are named), at that port or a free one.

    It is not ready yet, and whoever starts it stops it.
    """
    port = port or free_port()
    replaced = [argument.replace("{host}", host.address).replace("{port}", str(port)) for argument in command.arguments]
    environment = {**os.environ, **command.environment}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
    log = tempfile.TemporaryFile()  # noqa: SIM115 - the server has it until it is stopped
    with pinned(cores):
        process = subprocess.Popen(
            [*host.enter, *replaced],
            env=environment,
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Server(command, process, port, log, host)


@contextmanager
def running(command: Command, cores: Sequence[int] = (), port: int | None = None) -> Iterator[Server]:
    """Start a server, all its processes on these cores (any, where none are named), and stop it at the end.

    It is at that port, or at a free one.

    Raises `ServerError` where it ends early or is not ready within `START_LIMIT_S`.
    """
    server = start(command, cores, port=port)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def add_cores(parser: argparse.ArgumentParser) -> None:
    """The options that say which processor cores servers, their batches and the generator run on."""
    add = parser.add_argument
    add("--server-cores", type=int, nargs="*", default=[0, 1], help="none: not pinned (default 0 1)")
    add("--slot-cores", type=int, nargs="*", default=[0], help="of those, where batches run; none: on all (default 0)")
    add("--generator-cores", type=int, nargs="*", default=[1], help="none: not pinned (default 1)")


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Run the block, and every process that it starts, on these cores; on any where none are named or possible."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """A port that nobody listens on.

    Not one of those that the system hands out by itself: until the server listens there, any process could be given it.
    """
    for port in SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerError(f"no free port from {PORTS.start} to {PORTS.stop - 1}")


def _peer_model(models: Path, family: str, variant: str) -> dict[str, str]:
    return {MODELS: str(models.resolve()), FAMILY: family, VARIANT: variant}


def _end_of(log: IO[bytes]) -> str:
    size = os.fstat(log.fileno()).st_size
    written = os.pread(log.fileno(), 2000, max(0, size - 2000)).decode(errors="replace").strip()
    return ":\n" + "\n".join(written.splitlines()[-LOG_LINES:]) if written else ""
