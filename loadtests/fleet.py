"""Several real gateways behind a real HAProxy, each in a network namespace of its own where the system allows it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path

import orjson

from loadtests.cpu_quotas import quotas
from loadtests.haproxy import Balancer, balancer
from loadtests.namespaces import Machine, NamespaceError, loopback, namespaced
from loadtests.servers import Host, Server, ServerError, free_port, gateway, start

LIMIT_S = 60.0
STEP_S = 0.02
UP, DOWN = "UP", "DOWN"


class Replica:
    """One of the gateways: it runs, or it has ended and may be started again at the same address."""

    def __init__(
        self,
        name: str,
        models: Path,
        environment: Mapping[str, str],
        machine: Machine,
        enter: Sequence[str] = (),
        cores: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.machine = machine
        self._host = Host(machine.host.address, (*enter, *machine.host.enter))
        self._cores = cores
        self._command = gateway(models, environment)
        self._port = free_port()
        self.server = self._started()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self.machine.host.address}:{self._port}"

    def stop(self) -> int:
        """Ask it to end as an operator does, wait, and return its exit code."""
        return self.server.stop()

    def kill(self) -> None:
        """End it without any chance to finish something."""
        self.server.kill()

    def restart(self) -> None:
        """Start it again, after it has ended; it is not ready yet."""
        self.server = self._started()

    def _started(self) -> Server:
        return start(self._command, self._cores, self._host, self._port)


class Fleet:
    """Replicas, and the balancer in front of them. `namespaces` says why they share one namespace, or is empty."""

    def __init__(self, replicas: Sequence[Replica], front: Balancer, shared: str) -> None:
        self.replicas = replicas
        self.front = front
        self.shared = shared

    def wait_for(self, state: str, *replicas: Replica) -> None:
        """Wait until the balancer thinks so of these. Raises `ServerError` where it does not within a minute."""
        names = [replica.name for replica in replicas or self.replicas]
        self.wait_until(lambda: all(self.front.states()[name] == state for name in names), f"{names} are {state}")

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for it. Raises `ServerError` where it is not so within a minute."""
        limit_s = time.monotonic() + LIMIT_S
        while not condition():
            if time.monotonic() > limit_s:
                raise ServerError(f"after {LIMIT_S:g} s still not: {what}; HAProxy says {self.front.states()}")
            time.sleep(STEP_S)


def _stop_all(replicas: Sequence[Replica]) -> None:
    if replicas:
        with ThreadPoolExecutor(len(replicas)) as pool:
            list(pool.map(Replica.stop, replicas))


def answered_by(server: Server) -> list[str]:
    """The ids of the requests that a gateway says it has served, where `access_log_share` is 1 and logs are JSON."""
    lines = (orjson.loads(line) for line in server.said().splitlines() if line.startswith('{"'))
    return [line["request_id"] for line in lines if str(line.get("outcome", "")).startswith("served")]


@contextmanager
def fleet(
    models: Path,
    count: int,
    environment: Mapping[str, str],
    replaced: Mapping[str, str] | None = None,
    share: float | None = None,
) -> Iterator[Fleet]:
    """So many replicas that the balancer has found ready; `replaced` as in `balancer`. All end with the block.

    Each has that `share` (0.1 to 1) of one processor's time and no more, where it is given. A processor may be that of
    several.

    Raises `ServerError` where HAProxy is not installed or something does not start, `QuotaError` without quotas.
    """
    with ExitStack() as stack:
        shared = ""
        try:
            machines = stack.enter_context(namespaced(count))
        except NamespaceError as error:
            machines, shared = stack.enter_context(loopback(count)), str(error)
        replicas: list[Replica] = []
        enters: list[tuple[str, ...]] = [()] * count
        cores: list[list[int]] = [[]] * count
        if share is not None:
            enters = stack.enter_context(quotas(count, share))
            # The kernel hands out a quota to one processor at a time, in pieces that may be all of it.
            cores = [[core] for core, _ in zip(cycle(sorted(os.sched_getaffinity(0))), range(count), strict=False)]
        stack.callback(_stop_all, replicas)
        for index, machine in enumerate(machines):
            place = machine, enters[index], cores[index]
            replicas.append(Replica(f"replica-{index + 1}", models, environment, *place))
        for replica in replicas:
            replica.server.wait_until_ready()
        front = stack.enter_context(balancer({replica.name: replica.address for replica in replicas}, replaced))
        running = Fleet(replicas, front, shared)
        running.wait_for(UP)
        yield running
