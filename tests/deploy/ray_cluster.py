"""A real Ray cluster on this machine: raylets in network namespaces of their own, `serve run` beside the head."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil

from loadtests.namespaces import Machine, namespaced
from loadtests.servers import ROOT, Command, Server, start

BIN = Path(sys.executable).parent
CONFIGURATION = ROOT / "deploy" / "ray" / "serve.yaml"
APPLICATION = "pareto"
GCS_PORT, PROXY_PORT = 6379, 8000
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # On a busy machine a raylet takes longer than half a minute to start.
    "RAY_raylet_start_wait_time_s": "120",
    # A node that is gone is noticed after some three seconds instead of fifteen.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
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
        self._address = f"{machines[0].host.address}:{GCS_PORT}"
        first = ("--head", f"--port={GCS_PORT}", "--include-dashboard=false", "--no-monitor", "--num-cpus=0")
        self.head = self._node("0", machines[0], *first)
        _wait_until_started([self.head])
        self.nodes = [
            self._node(str(number), machine, f"--address={self._address}", "--num-cpus=2")
            for number, machine in enumerate(machines[1:], start=1)
        ]
        _wait_until_started(self.nodes)

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
        self.serving = start(Command("serve", arguments, ENVIRONMENT), host=self._machines[0].host)
        self._stack.callback(self.serving.kill)

    @contextmanager
    def operator(self) -> Iterator[Callable[[], None]]:
        """Somebody who is connected to the cluster and, when called, takes the application down until it is gone."""
        connect = f"import ray; from ray import serve; ray.init({self._address!r}, log_to_driver=False)"
        program = f"{connect}; print('connected', flush=True); input(); serve.delete({APPLICATION!r}); print('gone')"
        command = [*self._machines[0].host.enter, sys.executable, "-c", program]
        environment = {**os.environ, **ENVIRONMENT}
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
        ) as process:

            def delete() -> None:
                said, _ = process.communicate("\n", timeout=LIMIT_S)
                assert said.splitlines()[-1:] == ["gone"], said

            try:
                assert process.stdout is not None, "a pipe"
                assert any("connected" in line for line in process.stdout)
                yield delete
            finally:
                process.kill()

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
        for log in self.folder.glob("*/session_latest/logs/worker-*.err"):
            found[log.name] = re.findall(r"pareto\.access:(\S+): .* served", log.read_text(errors="replace"))
        return found

    def _node(self, name: str, machine: Machine, *arguments: str) -> Server:
        """A node that starts. It has a folder of its own, so that several may start at a time."""
        folder = self.folder / name
        folder.mkdir()
        common = ("--block", "--disable-usage-stats", "--include-log-monitor=false", *PORTS)
        own = (f"--node-ip-address={machine.host.address}", f"--temp-dir={folder}")
        memory = f"--object-store-memory={OBJECT_STORE_BYTES}"
        command = Command("ray", (str(BIN / "ray"), "start", *own, *common, memory, *arguments), ENVIRONMENT)
        node = start(command, host=machine.host)
        self._stack.callback(node.kill)
        return node


def _wait_until_started(nodes: Sequence[Server]) -> None:
    for node in nodes:
        wait_until(partial(_has_started, node), "a node has started", node)


def _has_started(node: Server) -> bool:
    return "runtime started" in node.said()


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
