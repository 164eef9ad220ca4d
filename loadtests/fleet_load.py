"""Open-loop load on a fleet: measured, from a process of its own, or beside what is done to the fleet meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from loadtests.fleet import Fleet
from loadtests.generator_faults import Sending
from loadtests.outcomes import Results
from loadtests.samples import Samples
from loadtests.sender import Place, Sender, go_first, prepared, read_answers
from loadtests.traces import Shape, arrivals
from loadtests.workload import SloMix, Workload

LONGEST_S = 180.0
"""Load beside something else ends with that; so much is prepared."""
FLOWING = 50
"""Requests sent, after which load flows."""


def poisson(rate: float, duration_s: float, slo_s: float, samples: Samples, seed: int) -> Workload:
    """Requests of one SLO at random moments. Raises `TraceError`."""
    rng = np.random.default_rng(seed)
    arrival_s = arrivals("poisson", rate, duration_s, Shape(), rng)
    return Workload.draw(arrival_s, SloMix((slo_s,), (1.0,)), len(samples), rng, f"poisson {rate:.0f}/s")


class Generator:
    """Sends workloads from a process of its own; use as a context manager."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), go_first)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown()

    def send(
        self, workload: Workload, places: Sequence[Place], to: NDArray[np.int64], variant: str | None = None
    ) -> tuple[Results, Sending]:
        """Send each request to the place whose index `to` (int64 [n]) has for it; `variant` pins one."""
        return self._pool.submit(_sent, workload, self._samples, places, to, variant).result()


def _sent(
    workload: Workload, samples: Samples, places: Sequence[Place], to: NDArray[np.int64], variant: str | None
) -> tuple[Results, Sending]:
    requests = prepared(workload, samples, places[0][0], variant)
    sender = Sender(*places[0], requests, [places[index] for index in to.tolist()])
    started_s, sending = sender.run(workload)
    return read_answers(sender.seen, started_s, workload, samples), sending


@dataclass
class Sent:
    """What a load was, and what became of it."""

    sender: Sender
    name: str

    @property
    def statuses(self) -> dict[str, int]:
        """By request id, 0 where no answer came."""
        seen = self.sender.seen[: self.sender.sent]
        return {f"{self.name}{index}": int(one[1][9:12]) if one else 0 for index, one in enumerate(seen)}


@contextmanager
def load(
    on: Fleet, samples: Samples, name: str, rate: float, slo_s: float, variant: str | None = None
) -> Iterator[Sent]:
    """Open-loop load from before the block until its end; then all answers have come, or never will."""
    workload = poisson(rate, LONGEST_S, slo_s, samples, 7)
    at = on.front.server
    sender = Sender(at.address, at.port, prepared(workload, samples, at.address, variant, name))
    thread = threading.Thread(target=sender.run, args=(workload,))
    thread.start()
    try:
        on.wait_until(lambda: sender.sent > FLOWING, "requests flow")
        yield Sent(sender, name)
    finally:
        sender.enough = True
        thread.join()
