"""A real Ray cluster on this machine: raylets in network namespaces of their own, `serve run` beside the head."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from loadtests.namespaces import Machine, namespaced
from loadtests.servers import ROOT, Command, Server, start

BIN = ROOT / ".venv" / "ray" / "bin"
CONFIGURATION = ROOT / "deploy" / "ray" / "serve.yaml"
GCS_PORT, PROXY_PORT = 6379, 8000
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # On a busy machine a raylet takes longer than half a minute to start.
    "RAY_raylet_start_wait_time_s": "120",
}
PORTS = (
    "--dashboard-agent-grpc-port=7001",
    "--metrics-export-port=7002",
    "--runtime-env-agent-port=7003",
    "--dashboard-agent-listen-port=7004",
)
"""Else a raylet waits fifteen seconds for its helpers to say theirs, and gives up."""
OBJECT_STORE_BYTES = 80_000_000
"""About the least that Ray takes."""


LIMIT_S = 150.0


class Cluster:
    """A head, which takes no replicas, and nodes with two processors each; all have a proxy once they are needed."""

    def __init__(self, machines: Sequence[Machine], folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._machines = machines
        self._stack = stack
        head = machines[0].host
        self._address = f"{head.address}:{GCS_PORT}"
        first = ("--head", f"--port={GCS_PORT}", "--include-dashboard=false", "--no-monitor", "--num-cpus=0")
        self.head = self._node(machines[0], *first, f"--temp-dir={folder}")
        self.nodes = [self._node(machine, f"--address={self._address}", "--num-cpus=2") for machine in machines[1:]]

    @property
    def proxies(self) -> list[str]:
        """Where requests may be sent: to each node that has a replica, and to the head."""
        return [f"http://{machine.host.address}:{PROXY_PORT}" for machine in self._machines]

    def serve(self, settings: Mapping[str, str]) -> None:
        """`serve run` with the shipped configuration, but for these settings."""
        shipped = "        PARETO_MODELS: /models\n"
        text = CONFIGURATION.read_text()
        assert shipped in text
        file = self.folder / "serve.yaml"
        lines = (f"        {name}: {json.dumps(value)}\n" for name, value in settings.items())
        file.write_text(text.replace(shipped, "".join(lines)))
        arguments = (str(BIN / "serve"), "run", str(file), f"--address={self._address}")
        self.serving = start(Command("serve", arguments, QUIET), host=self._machines[0].host)
        self._stack.callback(self.serving.kill)

    def count(self) -> int:
        """The replicas on all nodes."""
        return sum(self.replicas(node) for node in self.nodes)

    def replicas(self, node: Server) -> int:
        """The replicas on a node."""
        found = 0
        for process in node.tree():
            with suppress(psutil.Error):
                found += "ServeReplica" in " ".join(process.cmdline())
        return found

    def answered(self) -> dict[str, list[str]]:
        """The ids of the requests that each replica says it has served, by the name of its log."""
        found = {}
        for log in self.folder.glob("session_latest/logs/worker-*.err"):
            found[log.name] = re.findall(r"pareto\.access:(\S+): .* served", log.read_text(errors="replace"))
        return found

    def _node(self, machine: Machine, *arguments: str) -> Server:
        """A node that has started: two at a time would take each other's names in the folder that they share."""
        common = ("--block", "--disable-usage-stats", f"--object-store-memory={OBJECT_STORE_BYTES}", *PORTS)
        own = f"--node-ip-address={machine.host.address}"
        node = start(Command("ray", (str(BIN / "ray"), "start", own, *common, *arguments), QUIET), host=machine.host)
        self._stack.callback(node.kill)
        wait_until(lambda: "runtime started" in node.said(), "a node has started", node)
        return node


def wait_until(condition: Callable[[], bool], what: str, needed: Server) -> None:
    """Wait longer than elsewhere: a cluster is some twenty processes. Raises `ServerError` where `needed` has ended."""
    limit_s = time.monotonic() + LIMIT_S
    while not condition():
        needed.check()
        assert time.monotonic() < limit_s, f"after {LIMIT_S:g} s still not: {what}"
        time.sleep(0.1)


@contextmanager
def cluster(nodes: int, folder: Path) -> Iterator[Cluster]:
    """So many nodes beside the head. `folder` has a short name: it holds sockets.

    Raises `NamespaceError` where namespaces cannot be made: raylets of one cluster take an address each.
    """
    with ExitStack() as stack:
        yield Cluster(stack.enter_context(namespaced(nodes + 1)), folder, stack)
