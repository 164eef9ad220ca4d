"""The memory budget at work: plans of `router.placement` carried out beside the requests, one step at a time.

Opening a model, checking its files, warming it and making the policy's tables happen on one thread; the event loop only
swaps what is ready. A variant that is to go is taken from the scheduler first and dropped once no batch uses it.

The budget is held against what the process really uses: what models may take is the budget less everything else, as
measured before every step. What is believed of variants (`service.correction`) changes between two steps, so that
neither undoes the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic
from typing import Protocol, TypeVar

from router.contract import BatchRecord, Record
from router.family import Family
from router.placement import Load, Spot, Step
from router.roster import Cold, Missing
from router.scheduler import Scheduler
from service.appraisal import Appraisal
from service.correction import Lost
from service.lazy_preparer import LazyPreparer
from service.memory import give_back
from service.piecewise import PiecewiseFamily
from service.sums import LATENCY_EDGES, Sums
from variants.repository import RepositoryError
from variants.session import ModelLoadError

logger = logging.getLogger("pareto.residency")

TICK_S = 1.0
"""Without cold requests, what is loaded is looked at this often."""
UNUSED_S = 10.0
"""For so long after a request, a tokenizer stays for the next one though nothing of its family is in memory."""

TELL_EVERY_S = 60.0
"""That requests for a family wait in vain is logged this often at most."""

Result = TypeVar("Result")


class Change(Protocol):
    """Lets the scheduler know of something on the event loop, and acts on what becomes of it."""

    def __call__(self, change: Callable[[float], None], /) -> None:
        """Call `change` with the time."""


class Residency:
    """Keeps `pieces`, the families by name, within `budget_bytes`; its methods run on the event loop.

    `loads`, `failures` and `evictions` count; `load_s` has the seconds of loads, `cold_s` how long the first request of
    a cold family waited for its load.
    """

    def __init__(
        self,
        pieces: dict[str, PiecewiseFamily],
        budget_bytes: int,
        pinned: Iterable[str],
        slots: int,
    ) -> None:
        self.pieces = pieces
        self.appraisal = Appraisal(pieces, budget_bytes, pinned, slots)
        self.loads = self.failures = self.evictions = 0
        self.load_s = Sums(LATENCY_EDGES)
        self.cold_s = Sums(LATENCY_EDGES)
        self.loading: Spot | None = None
        self._thread = ThreadPoolExecutor(1, "loading")
        self._wanted = asyncio.Event()
        self._ended = asyncio.Event()
        self._stepping = asyncio.Lock()
        self._scheduler: Scheduler | None = None
        self._tell: Change | None = None
        self._task: asyncio.Task[None] | None = None
        self._told_s: dict[str, float] = {}

    def begin(self, scheduler: Scheduler, tell: Change) -> None:
        """Hold the budget from now on."""
        self._scheduler = scheduler
        self._tell = tell
        self._task = asyncio.create_task(self._run())
        self._wanted.set()

    def allow(self, budget_bytes: int, pinned: Iterable[str]) -> None:
        """Hold another budget from now on."""
        self.appraisal.budget_bytes = budget_bytes
        self.appraisal.pinned = frozenset(pinned)
        self._wanted.set()

    def stop(self) -> None:
        """Load and unload no more."""
        if self._task is not None:
            self._task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def asked(self, family: str, rows: int) -> None:
        """Requests for a family have come; called for each, once the scheduler has it."""
        self.appraisal.popularity.observe(family, rows, monotonic())
        if self._scheduler is not None and self._scheduler.cold_rows and not self._wanted.is_set():
            self._wanted.set()

    def observe(self, _records: Sequence[Record], batches: Sequence[BatchRecord]) -> None:
        """See `service.dispatcher.Observer`."""
        if batches:
            self._ended.set()

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """Run something slow where models are loaded, one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def load_first(self, name: str) -> bool:
        """Load the smallest variant of a family now; whether it has one in memory then."""
        piece = self.pieces[name]
        while self.appraisal.variants(piece) and not piece.paths:
            if not await self._step({name: Cold(0, float("-inf"), (Missing(0),))}):
                break
        return bool(piece.paths)

    async def exchange(self, name: str, new: PiecewiseFamily | None, swap: Callable[[], None]) -> None:
        """Have another revision of a family from now on, or a new family, or (None) none.

        `swap` tells the scheduler, in which the old one must have no requests left; what it raises is raised.
        """
        async with self._stepping:
            swap()
            old = self.pieces.pop(name, None)
            self.appraisal.forget(name)
            self._told_s.pop(name, None)
            if new is not None:
                self.pieces[name] = new
            else:
                self.appraisal.popularity.forget(name)
            if old is not None:
                await self.in_thread(lambda: _drop(old, tuple(old.paths)))
        self._wanted.set()

    async def believe(self, measured: Family, lost: Lost) -> bool:
        """See `service.correction.Believe`. Later loads and unloads carry it on."""
        async with self._stepping:
            piece = self.pieces.get(measured.name)
            if piece is None or piece.loaded.family is not measured:
                return False
            piece.lost = lost
            self.appraisal.forget(measured.name)
            await self._swap(piece)
        # What is worth its memory may be another one.
        self._wanted.set()
        return True

    async def _run(self) -> None:
        pause_s = TICK_S
        while True:
            try:
                async with asyncio.timeout(pause_s):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            started_s, pause_s = monotonic(), TICK_S
            try:
                while await self._step({}):
                    if not self._is_waited_for():
                        # What nobody waits for is loaded at half the pace: a cold request is to find the thread free.
                        pause_s = monotonic() - started_s
                        break
                await self._close_tokenizers()
            except Exception:
                # Requests go on with what is loaded.
                logger.exception("what is in memory could not be changed")

    async def _close_tokenizers(self) -> None:
        """Close those that requests have opened for families of which nothing was loaded, as of those refused."""
        async with self._stepping:
            assert self._scheduler is not None, "begun"
            unused = self.appraisal.unused(self._scheduler.cold(), monotonic() - UNUSED_S)
            if unused:
                await self.in_thread(lambda: _close(unused))

    def _is_waited_for(self) -> bool:
        return self._scheduler is not None and self._scheduler.cold_rows > 0

    async def _step(self, asked: dict[str, Cold]) -> bool:
        """Carry out a plan up to its first load. Whether there was anything to do."""
        async with self._stepping:
            assert self._scheduler is not None, "begun"
            cold = {**self._scheduler.cold(), **asked}
            busy = self._scheduler.busy()
            steps = await self.in_thread(lambda: self.appraisal.plan(cold, busy))
            self._refuse_in_vain(cold, steps)
            first = next((step for step in steps if isinstance(step, Load)), None)
            leaving: dict[str, list[str]] = {}
            for step in steps[: steps.index(first)] if first is not None else steps:
                leaving.setdefault(step.spot.family, []).append(self._variant(step.spot))
            for name, variants in leaving.items():
                await self._evict(name, variants)
            if first is not None:
                await self._load(first.spot)
            return bool(steps)

    def _refuse_in_vain(self, cold: Mapping[str, Cold], steps: Sequence[Step]) -> None:
        """Who waits for what cannot be loaded, because it is broken or larger than the budget, is told so."""
        assert self._tell is not None, "begun"
        assert self._scheduler is not None, "begun"
        promised = {step.spot for step in steps if isinstance(step, Load)}
        for name, waits in cold.items():
            for missing in waits.missing if waits.rows else ():
                if not self.appraisal.can_load(name, missing, promised):
                    self._tell_in_vain(name, missing)
                    self._tell(partial(self._scheduler.refuse_cold, name, missing))

    def _tell_in_vain(self, name: str, missing: Missing) -> None:
        now = monotonic()
        if now - self._told_s.get(name, -TELL_EVERY_S) >= TELL_EVERY_S:
            self._told_s[name] = now
            logger.warning("family %s: requests are refused: %s", name, self.appraisal.lack(name, missing))

    async def _load(self, spot: Spot) -> None:
        piece, variant = self.pieces[spot.family], self._variant(spot)
        assert self._scheduler is not None, "begun"
        self.loading = spot
        try:
            opened = await self.in_thread(partial(piece.open, variant))
            piece.paths[variant] = opened.path
            waits = self._scheduler.cold().get(piece.name)
            await self._swap(piece)
            if waits is not None:
                self.cold_s.add(monotonic() - waits.since_s)
        except (ModelLoadError, RepositoryError):
            # It is refused by name from now on, and logged.
            self.failures += 1
            self.appraisal.forget(spot.family)
            return
        finally:
            self.loading = None
        self.loads += 1
        self.load_s.add(opened.seconds)
        logger.info("family %s: %s is loaded (%.0f ms)", spot.family, variant, opened.seconds * 1e3)

    async def _evict(self, name: str, variants: Sequence[str]) -> None:
        piece = self.pieces[name]
        await self._swap(piece, without=variants)
        assert self._scheduler is not None, "begun"
        while not self._scheduler.in_use(name).isdisjoint(variants):
            self._ended.clear()
            await self._ended.wait()
        await self.in_thread(lambda: _drop(piece, variants))
        self.evictions += len(variants)
        logger.info("family %s: %s unloaded", name, ", ".join(variants))

    async def _swap(self, piece: PiecewiseFamily, without: Sequence[str] = ()) -> None:
        """Let the scheduler know what is loaded now."""
        assert self._scheduler is not None, "begun"
        assert self._tell is not None, "begun"
        scheduler = self._scheduler
        prepared = await self.in_thread(lambda: scheduler.prepare(piece.family(without)))
        self._tell(partial(scheduler.replace, prepared))

    def _variant(self, spot: Spot) -> str:
        return self.pieces[spot.family].loaded.family.variants[spot.variant].name


def _close(preparers: Iterable[LazyPreparer]) -> None:
    for preparer in preparers:
        preparer.close()
    give_back()


def _drop(piece: PiecewiseFamily, variants: Iterable[str]) -> None:
    for variant in variants:
        piece.drop(variant)
    give_back()
