"""A real HAProxy with the shipped configuration as a child process; Debian's package `haproxy` has it."""

from __future__ import annotations

import re
import shutil
import socket
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from loadtests.servers import ROOT, Command, Server, ServerError, free_port, running

PROGRAM = "haproxy"
NOT_INSTALLED = f"{PROGRAM} (Debian package haproxy) is not installed"
CONFIGURATION = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
LIMIT_S = 5.0


def is_installed() -> bool:
    """Whether there is an HAProxy to start."""
    return shutil.which(PROGRAM) is not None


class Counted(NamedTuple):
    """What a balancer has counted since it started: requests handed to a replica, each time anew; second attempts
    after an answer that was none; and changes of the replica, for that or because it was not reached.
    """

    handed: int
    repeated: int
    moved: int

    def since(self, before: Counted) -> Counted:
        """What came after that."""
        return Counted(*(now - then for now, then in zip(self, before, strict=True)))


@dataclass(frozen=True, slots=True)
class Balancer:
    """An HAProxy that runs: its `server`, and the socket for what operators ask."""

    server: Server
    socket: Path

    def states(self) -> dict[str, str]:
        """What it thinks of each replica, by name: `UP`, `DOWN`, `MAINT`, or on the way, as `UP 1/2`."""
        return {row["svname"]: row["status"] for row in self._replicas()}

    def counted(self) -> Counted:
        """What it has counted of all replicas together; unlike the log, never late and never short of a line."""
        rows = self._replicas()
        return Counted(*(sum(int(row[column]) for row in rows) for column in ("stot", "wretr", "wredis")))

    def take_out(self, names: Collection[str]) -> None:
        """Send nothing new to these replicas; all others take part, or take part again."""
        for name in self.states():
            self._ask(f"set server replicas/{name} state {'drain' if name in names else 'ready'}")

    def log(self) -> list[dict[str, Any]]:
        """What it has said of each request that has ended, in order: see `log-format` in its configuration."""
        return [orjson.loads(line) for line in self.server.said().splitlines() if line.startswith("{")]

    def _replicas(self) -> list[dict[str, str]]:
        """Its statistics of each replica, by the names of HAProxy's columns."""
        head, *lines = self._ask("show stat").removeprefix("# ").splitlines()
        names = head.split(",")
        rows = (dict(zip(names, line.split(","), strict=False)) for line in lines if line)
        return [row for row in rows if row["pxname"] == "replicas" and row["svname"] != "BACKEND"]

    def _ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(LIMIT_S)
            connection.connect(str(self.socket))
            connection.sendall(f"{command}\n".encode())
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts).decode()


@contextmanager
def balancer(replicas: Mapping[str, str], replaced: Mapping[str, str] | None = None) -> Iterator[Balancer]:
    """An HAProxy in front of these replicas, `host:port` by name; ready as soon as one of them is.

    `replaced` has other lines in place of some of the shipped configuration's. Raises `ServerError` where it is not
    installed or does not start.
    """
    if not is_installed():
        raise ServerError(NOT_INSTALLED)
    with tempfile.TemporaryDirectory() as folder:
        admin, file = Path(folder, "admin.sock"), Path(folder, "haproxy.cfg")
        port = free_port()
        file.write_text(configuration(replicas, port, admin, replaced or {}), encoding="utf-8")
        with running(Command(PROGRAM, (PROGRAM, "-db", "-f", str(file))), port=port) as server:
            yield Balancer(server, admin)


def configuration(replicas: Mapping[str, str], port: int, admin: Path, replaced: Mapping[str, str]) -> str:
    """The shipped configuration with these replicas, on a port of this machine. Raises `ValueError` where a line that
    is to be replaced is not there.
    """
    text = CONFIGURATION.read_text(encoding="utf-8")
    own = {
        "bind :3000": f"bind 127.0.0.1:{port}",
        "stats socket /run/haproxy/admin.sock mode 660 level admin": f"stats socket {admin} mode 600 level admin",
        "bind 127.0.0.1:8404": f"bind 127.0.0.1:{free_port()}",
    }
    for line, other in {**own, **replaced}.items():
        if f"    {line}\n" not in text:
            raise ValueError(f"{CONFIGURATION.name}: has no line {line!r}")
        text = text.replace(f"    {line}\n", f"    {other}\n")
    servers = "".join(f"    server {name} {address}\n" for name, address in replicas.items())
    return re.sub(r"(    server .*\n)+", servers, text)
