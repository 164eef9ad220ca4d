"""The memory budget at work: plans of `router.placement` carried out beside the requests, one step at a time.

Opening a model, checking its files, warming it and making the policy's tables happen on one thread (`service.moves`).

The budget is held against what the process really uses: what models may take is the budget less everything else, as
measured before every step. What is believed of variants (`service.correction`) changes between two steps, so that
neither undoes the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic

from router.contract import BatchRecord, Record
from router.family import Family
from router.placement import Load, Step
from router.roster import Cold, Missing
from router.scheduler import Scheduler
from service.appraisal import Appraisal
from service.correction import Lost
from service.footprint import OWN, Footprint
from service.hidden_families import is_hidden
from service.hopes import Hopes
from service.in_memory import unused_tokenizers
from service.lazy_preparer import LazyPreparer
from service.log_words import NO_ROOM, NOTHING
from service.model_room import ModelRoom
from service.moves import Change, Moves
from service.paths import NotNowError
from service.piecewise import PiecewiseFamily
from service.room_words import lack_said, room_said
from variants.resident import give_back

logger = logging.getLogger("pareto.residency")

TICK_S = 1.0
"""Without cold requests, what is loaded is looked at this often."""
UNUSED_S = 10.0
"""For so long after a request, a tokenizer stays for the next one though nothing of its family is in memory."""

LOOKS_EVERY_S = 0.25
"""While requests wait that nothing is loaded for, it is looked at this often whether there is room now."""

TIDY_EVERY_S = 1.0
"""Memory that batches have left free counts as used until it is handed back, which takes milliseconds: this often at
most, before anybody is refused or goes for it."""

TELL_EVERY_S = 60.0
"""That requests for a family wait in vain is logged this often at most."""


class Residency:
    """Keeps `pieces`, the families by name, within `budget_bytes`; its methods run on the event loop."""

    def __init__(
        self,
        pieces: dict[str, PiecewiseFamily],
        budget_bytes: int,
        pinned: Iterable[str],
        slots: int,
        footprint: Footprint = OWN,
    ) -> None:
        self.pieces = pieces
        self.room = ModelRoom(pieces, budget_bytes, pinned, slots, footprint)
        self.appraisal = Appraisal(self.room, slots)
        self.moves = Moves(pieces, footprint, self.appraisal.forget)
        self.changed: Callable[[], None] = lambda: None
        """Called when `is_futile` is another than before."""
        self._wanted = asyncio.Event()
        self._stepping = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._told_s: dict[str, float] = {}
        self._hopes = Hopes(self.room)
        self._told = self.room.measured_for, False
        self._told_too_large: set[str] = set()

    def begin(self, scheduler: Scheduler, tell: Change) -> None:
        """Hold the budget from now on."""
        self.moves.begin(scheduler, tell)
        self._task = asyncio.create_task(self._run())
        self._wanted.set()

    @property
    def is_futile(self) -> bool:
        """Whether nothing is in memory and nothing could be: no request for any family would be answered."""
        return self.room.is_futile

    def allow(self, budget_bytes: int, pinned: Iterable[str]) -> None:
        """Hold another budget from now on."""
        self.room.budget_bytes = budget_bytes
        self.room.pinned = frozenset(pinned)
        self._wanted.set()

    def stop(self) -> None:
        """Load and unload no more."""
        if self._task is not None:
            self._task.cancel()
        self.moves.stop()

    def asked(self, family: str, rows: int) -> None:
        """Requests for a family have come; called for each, once the scheduler has it."""
        self.appraisal.popularity.observe(family, rows, monotonic())
        if self._is_waited_for() and not self._wanted.is_set() and self._hopes.is_news(self.pieces.get(family)):
            self._wanted.set()

    def observe(self, _records: Sequence[Record], batches: Sequence[BatchRecord]) -> None:
        """See `service.observers.Observer`."""
        if batches:
            self.moves.batches_ended()

    async def tell_of_room(self) -> None:
        """Log what the budget leaves for models, before anything is loaded; right after `begin`."""
        async with self._stepping:
            await self.moves.in_thread(self.room.warm)
            await self.moves.in_thread(lambda: self.appraisal.plan({}, frozenset()))
            await self._tell_of_room()

    async def load_first(self, name: str) -> bool:
        """Load the smallest variant of a family now; whether it has one in memory then."""
        piece = self.pieces[name]
        # Where nobody is there to open models, it is tried again when it is asked for.
        with suppress(NotNowError):
            while self.room.variants(piece) and not piece.paths:
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
                await self.moves.in_thread(lambda: self.moves.drop(old, tuple(old.paths)))
        self._wanted.set()

    async def believe(self, measured: Family, lost: Lost) -> bool:
        """See `service.correction.Believe`. Later loads and unloads carry it on."""
        async with self._stepping:
            piece = self.pieces.get(measured.name)
            if piece is None or piece.loaded.family is not measured:
                return False
            piece.lost = lost
            self.appraisal.forget(measured.name)
            await self.moves.swap(piece)
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
                if self._is_waited_for():
                    pause_s = min(pause_s, LOOKS_EVERY_S)
            except NotNowError:
                # It is logged, and wanted at the next look as well.
                continue
            except Exception:
                # Requests go on with what is loaded.
                logger.exception("what is in memory could not be changed")

    async def _close_tokenizers(self) -> None:
        """Close those that requests have opened for families of which nothing was loaded, as of those refused."""
        async with self._stepping:
            asked_s = self.appraisal.popularity.last_s
            unused = unused_tokenizers(
                self.pieces, asked_s, self.moves.begun.cold(), self.room.too_large, monotonic() - UNUSED_S
            )
            if unused:
                await self.moves.in_thread(lambda: self._close(unused))

    def _is_waited_for(self) -> bool:
        return self.moves.scheduler is not None and self.moves.scheduler.cold_rows > 0

    async def _plan(self, cold: Mapping[str, Cold], busy: frozenset[str]) -> tuple[Step, ...]:
        """What to do next. Where that is to refuse or to let go, once more without what is in use for nothing."""
        steps = await self.moves.in_thread(lambda: self.appraisal.plan(cold, busy))
        promised = {step.spot for step in steps if isinstance(step, Load)}
        lacks = any(
            not self.room.can_load(name, missing, promised) for name, waits in cold.items() for missing in waits.missing
        )
        is_short = lacks or self.room.is_futile or (steps and not promised)
        if is_short and monotonic() - self.moves.tidied_s >= TIDY_EVERY_S:
            await self.moves.tidy()
            steps = await self.moves.in_thread(lambda: self.appraisal.plan(cold, busy))
        return steps

    async def _step(self, asked: dict[str, Cold]) -> bool:
        """Carry out a plan up to its first load. Whether there may be more to do at once."""
        async with self._stepping:
            cold = {**self.moves.begun.cold(), **asked}
            busy = self.moves.begun.busy()
            steps = await self._plan(cold, busy)
            await self._tell_of_room()
            self._refuse_in_vain(cold, steps)
            first = next((step for step in steps if isinstance(step, Load)), None)
            leaving: dict[str, list[str]] = {}
            for step in steps[: steps.index(first)] if first is not None else steps:
                leaving.setdefault(step.spot.family, []).append(self.moves.variant(step.spot))
            if leaving:
                await self.moves.in_thread(partial(self.room.keep_freed, something_goes=True))
            for name, variants in leaving.items():
                await self.moves.evict(name, variants)
            if first is not None:
                await self.moves.load(first.spot)
                return True
            await self.moves.in_thread(self.room.keep_freed)
            # A plan that was carried out is empty when it is made anew, but where less came of it than was believed, or
            # somebody waits by now: for what has gone, say.
            return bool(steps) and (self._is_waited_for() or not await self.moves.in_thread(self.room.holds))

    def _refuse_in_vain(self, cold: Mapping[str, Cold], steps: Sequence[Step]) -> None:
        """Who waits for what cannot be loaded, because it is broken or larger than the budget, is told so."""
        promised = {step.spot for step in steps if isinstance(step, Load)}
        for name, missing in self._hopes.in_vain(cold, promised, monotonic()):
            self._tell_in_vain(name, missing)
            self.moves.tell(partial(self.moves.begun.refuse_cold, name, missing))

    async def _tell_of_room(self) -> None:
        """After the first plan with another budget, other families or others pinned, when it holds nothing any more or
        something again, and once for each family that does not fit any more, as when the process has grown.
        """
        now = self.room.measured_for, self.is_futile
        too_large = {name for name in self.room.too_large if not is_hidden(name) and not self._serves(name)}
        if now == self._told and too_large <= self._told_too_large:
            return
        was_futile = self._told[1]
        self._told_too_large = too_large | (self._told_too_large if now == self._told else set())
        self._told = now
        said = await self.moves.in_thread(lambda: room_said(self.room))
        if self.is_futile:
            lacks = f"{said}; `pareto doctor` says how much would do"
            logger.error("%s%s", NOTHING, lacks if NO_ROOM in said else "every variant is refused, see above")
        else:
            # As a variant that is refused: nobody of those families is answered.
            logger.log(logging.ERROR if NO_ROOM in said else logging.INFO, "%s", said)
        if self.is_futile != was_futile:
            self.changed()

    def _serves(self, name: str) -> bool:
        piece = self.pieces.get(name)
        return piece is not None and bool(piece.paths)

    def _tell_in_vain(self, name: str, missing: Missing) -> None:
        now = monotonic()
        if now - self._told_s.get(name, -TELL_EVERY_S) >= TELL_EVERY_S:
            self._told_s[name] = now
            logger.warning(
                "family %s: requests are refused: %s", name, lack_said(self.room, self.pieces.get(name), missing)
            )

    def _close(self, preparers: Iterable[LazyPreparer]) -> None:
        for preparer in preparers:
            preparer.close()
        # They are in this process, wherever models are.
        give_back()
