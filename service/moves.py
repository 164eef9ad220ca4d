"""Models on their way into memory and out of it, one after the other on one thread; the event loop swaps what is ready.

A variant that is to go is taken from the scheduler first and dropped once no batch uses it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import inf
from time import monotonic
from typing import Protocol, TypeVar

from router.placement import Spot
from router.scheduler import Scheduler
from service.footprint import Footprint
from service.in_memory import taken_by_file
from service.paths import NotNowError
from service.piecewise import Opened, PiecewiseFamily
from service.sums import LATENCY_EDGES, Sums
from variants.repository import RepositoryError
from variants.session import ModelLoadError

logger = logging.getLogger("pareto.residency")

Result = TypeVar("Result")


class Change(Protocol):
    """Lets the scheduler know of something on the event loop, and acts on what becomes of it."""

    def __call__(self, change: Callable[[float], None], /) -> None:
        """Call `change` with the time."""


class Moves:
    """Moves variants of `pieces`, the families by name; what is not said to run elsewhere runs on the event loop.

    `loads`, `failures` and `evictions` count; `load_s` has the seconds of loads, `cold_s` how long the first request of
    a cold family waited for its load.
    """

    def __init__(
        self, pieces: Mapping[str, PiecewiseFamily], footprint: Footprint, forget: Callable[[str], None]
    ) -> None:
        self._pieces = pieces
        self._footprint = footprint
        self._forget = forget
        self.loads = self.failures = self.evictions = 0
        self.load_s = Sums(LATENCY_EDGES)
        self.cold_s = Sums(LATENCY_EDGES)
        self.loading: Spot | None = None
        self.tidied_s = -inf
        """When what is free was handed back last."""
        self.scheduler: Scheduler | None = None
        self._thread = ThreadPoolExecutor(1, "loading")
        self._ended = asyncio.Event()
        self._tell: Change | None = None

    def begin(self, scheduler: Scheduler, tell: Change) -> None:
        """Let this scheduler know of what is loaded."""
        self.scheduler = scheduler
        self._tell = tell

    @property
    def begun(self) -> Scheduler:
        """The scheduler, once there is one."""
        assert self.scheduler is not None, "begun"
        return self.scheduler

    def tell(self, change: Callable[[float], None]) -> None:
        """See `Change`."""
        assert self._tell is not None, "begun"
        self._tell(change)

    def batches_ended(self) -> None:
        """What a variant that is to go has waited for may be over."""
        self._ended.set()

    def stop(self) -> None:
        """Move nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """Run something slow where models are loaded, one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def load(self, spot: Spot) -> None:
        """Have a variant in memory; one with a fault is refused by name from now on. Raises `NotNowError`."""
        piece, variant = self._pieces[spot.family], self.variant(spot)
        self.loading = spot
        try:
            in_haste = piece.name in self.begun.cold()
            opened = await self.in_thread(partial(self._opened, piece, variant, in_haste=in_haste))
            piece.hold(variant, opened)
            waits = self.begun.cold().get(piece.name)
            await self.swap(piece)
            if waits is not None:
                self.cold_s.add(monotonic() - waits.since_s)
            if in_haste:
                await self.tidy()
        except NotNowError:
            self.failures += 1
            raise
        except (ModelLoadError, RepositoryError):
            # It is logged.
            self.failures += 1
            self._forget(spot.family)
            return
        finally:
            self.loading = None
        self.loads += 1
        self.load_s.add(opened.seconds)
        logger.info("family %s: %s is loaded (%.0f ms)", spot.family, variant, opened.seconds * 1e3)

    async def tidy(self) -> None:
        """Hand back what is free: see `Footprint`."""
        self.tidied_s = monotonic()
        await self.in_thread(self._footprint.tidy)

    async def evict(self, name: str, variants: Sequence[str]) -> None:
        """Drop variants once no batch uses them."""
        piece = self._pieces[name]
        await self.swap(piece, without=variants)
        while not self.begun.in_use(name).isdisjoint(variants):
            self._ended.clear()
            await self._ended.wait()
        await self.in_thread(lambda: self.drop(piece, variants))
        self.evictions += len(variants)
        logger.info("family %s: %s unloaded", name, ", ".join(variants))

    async def swap(self, piece: PiecewiseFamily, without: Sequence[str] = ()) -> None:
        """Let the scheduler know what is loaded now."""
        scheduler = self.begun
        prepared = await self.in_thread(lambda: scheduler.prepare(piece.family(without)))
        self.tell(partial(scheduler.replace, prepared))

    def variant(self, spot: Spot) -> str:
        """Its name."""
        return self._pieces[spot.family].loaded.family.variants[spot.variant].name

    def _opened(self, piece: PiecewiseFamily, variant: str, *, in_haste: bool) -> Opened:
        # What is kept is in the room that is for this: it is used, or goes.
        self._footprint.keep_at_most(piece.tables_bytes(variant, taken_by_file(self._pieces)))
        try:
            return piece.open(variant, in_haste=in_haste)
        finally:
            self._footprint.keep_at_most(0)

    def drop(self, piece: PiecewiseFamily, variants: Iterable[str]) -> None:
        """Drop what nothing uses; on the loading thread."""
        for variant in variants:
            piece.drop(variant)
        self._footprint.give_back()
