"""Hosts on one machine: network namespaces with an address each, joined by a bridge. Linux, root and iproute2 only.

A replica in a namespace of its own has its own ports, and its cable can be pulled (`Machine.pull`), which no signal to
a process is like. Where namespaces cannot be made, addresses of the loopback interface stand in for them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import SystemRandom

from loadtests.servers import Host

PROGRAM = "ip"
NETWORKS = range(256)
"""The third number of addresses. 198.18.0.0/15 is set aside for benchmarks (RFC 2544), so nobody routes it."""
LIMIT_S = 10.0


class NamespaceError(Exception):
    """Namespaces cannot be made here. The message is one line that says why."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One of the hosts; `host` is where servers are started, `cable` the outer end of its link (none: loopback)."""

    host: Host
    cable: str = ""

    def pull(self) -> None:
        """Let nothing through to or from it, as if its cable were pulled."""
        _ip("link", "set", self.cable, "down")

    def plug(self) -> None:
        """Let everything through again."""
        _ip("link", "set", self.cable, "up")


@contextmanager
def namespaced(count: int) -> Iterator[list[Machine]]:
    """So many namespaces that reach each other and are reached from here, until the block ends.

    Raises `NamespaceError` where that needs another system, another user or other rights.
    """
    if shutil.which(PROGRAM) is None:
        raise NamespaceError(f"{PROGRAM} (Debian package iproute2) is not installed")
    if os.geteuid() != 0:
        raise NamespaceError("network namespaces take root")
    # Short: the names of links have fifteen characters at most.
    name = f"pg{SystemRandom().getrandbits(24):06x}"
    network = _free_network()
    namespaces = [f"{name}-{index}" for index in range(count)]
    try:
        _ip("link", "add", name, "type", "bridge")
        _ip("addr", "add", f"{network}.1/24", "dev", name)
        _ip("link", "set", name, "up")
        yield [_joined(namespace, name, network, index + 2) for index, namespace in enumerate(namespaces)]
    finally:
        for namespace in namespaces:
            # With a namespace go its links, and with a link its other end.
            _ip("netns", "del", namespace, check=False)
        _ip("link", "del", name, check=False)


@contextmanager
def loopback(count: int) -> Iterator[list[Machine]]:
    """So many addresses of this machine's loopback interface."""
    yield [Machine(Host(f"127.0.0.{index + 2}")) for index in range(count)]


def _joined(namespace: str, bridge: str, network: str, number: int) -> Machine:
    """A new namespace with one link, `eth0`, whose other end is on the bridge.

    This end of the bridge is its gateway to everywhere, though nothing is passed on from there: programs look at how
    they would reach the world to learn their own address.
    """
    address = f"{network}.{number}"
    cable = namespace.replace("-", "v")
    _ip("netns", "add", namespace)
    _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    _ip("link", "set", cable, "master", bridge, "up")
    inside = ("-n", namespace)
    _ip(*inside, "link", "set", "lo", "up")
    _ip(*inside, "addr", "add", f"{address}/24", "dev", "eth0")
    _ip(*inside, "link", "set", "eth0", "up")
    _ip(*inside, "route", "add", "default", "via", f"{network}.1")
    return Machine(Host(address, (PROGRAM, "netns", "exec", namespace)), cable)


def _free_network() -> str:
    taken = _ip("-4", "-o", "addr", "show").split()
    for number in SystemRandom().sample(NETWORKS, len(NETWORKS)):
        network = f"198.18.{number}"
        if not any(word.startswith(f"{network}.") for word in taken):
            return network
    raise NamespaceError("all of 198.18.0.0/16 is in use on this machine")


def _ip(*arguments: str, check: bool = True) -> str:
    command = [PROGRAM, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if check and ran.returncode != 0:
        raise NamespaceError(f"ip {' '.join(arguments)}: {' '.join(ran.stderr.split())[:200]}")
    return ran.stdout
