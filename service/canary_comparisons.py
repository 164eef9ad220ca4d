"""Comparing the two revisions of a trial: a row that one answered is answered again by the other in spare time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from router.family import Family, VariantProfile
from router.words import Outcome, Reason
from service.canary_trial import Tryout, counterpart
from service.loaded_family import LoadedFamily
from service.oip.errors import ProtocolError
from service.preparing import prepared, size_classes
from service.spare_time import MOST_RUNNING, SpareTime
from service.work import Answer

if TYPE_CHECKING:
    from service.gateway import Gateway

logger = logging.getLogger("pareto.canaries")

Inputs = Mapping[str, NDArray[Any]]


class Comparisons:
    """Compares for the trials of one replica; a comparison for which there is no spare time is skipped, and counted.

    `changed` is called with a trial that has another comparison, while it `is_running`.
    """

    def __init__(
        self, gateway: Gateway, is_running: Callable[[Tryout], bool], changed: Callable[[Tryout], None]
    ) -> None:
        self._gateway = gateway
        self._is_running = is_running
        self._changed = changed
        self._spare: SpareTime | None = None
        self._comparing: set[asyncio.Task[None]] = set()

    def begin(self, spare: SpareTime) -> None:
        """Compare in this spare time from now on."""
        self._spare = spare

    def answer_again(self, trial: Tryout, answer: Answer, inputs: Inputs) -> None:
        """The new revision answered a caller: ask the old one."""
        like, label = _variant(trial.loaded, answer), int(answer.answers.labels[0])
        self._compare(trial, self._answer_again(trial, like, label, _first_row(inputs)))

    def shadow(self, trial: Tryout, loaded: LoadedFamily, answer: Answer, inputs: Inputs) -> None:
        """The old revision answered a caller: both answer a copy, so that what is timed was treated alike."""
        like, label = _variant(loaded, answer), int(answer.answers.labels[0])
        self._compare(trial, self._shadow(trial, loaded, like, label, _first_row(inputs)))

    def give_up(self, family: str) -> None:
        """Give up those that wait for a family."""
        if self._spare is not None:
            self._spare.give_up(family)

    def stop(self) -> None:
        """Ask nobody any more."""
        if self._spare is not None:
            self._spare.stop()

    def close(self) -> None:
        """Wait for nothing any more either."""
        for task in self._comparing:
            task.cancel()

    def _compare(self, trial: Tryout, comparison: Coroutine[Any, Any, None]) -> None:
        if len(self._comparing) >= MOST_RUNNING or self._spare is None or not self._spare.room():
            comparison.close()
            trial.report.skipped += 1
            return
        # A task, so that the answer goes out first.
        task = asyncio.get_running_loop().create_task(self._compared(trial, comparison))
        self._comparing.add(task)
        task.add_done_callback(self._comparing.discard)
        # One that is cancelled before its first step never gets to it.
        task.add_done_callback(lambda _: comparison.close())

    async def _compared(self, trial: Tryout, comparison: Coroutine[Any, Any, None]) -> None:
        try:
            await comparison
        except Exception:
            # Requests go on; the trial has a comparison less.
            trial.report.skipped += 1
            logger.exception("family %s: answers could not be compared", trial.report.model)
        if self._is_running(trial):
            self._changed(trial)

    async def _answer_again(self, trial: Tryout, like: VariantProfile, label: int, row: Inputs) -> None:
        loaded = self._gateway.revision(trial.report.model, trial.report.serving)
        copy = await self._copy(loaded, like, row) if loaded is not None else None
        old = None if copy is None else await copy
        if old is None or not old.record.variant:
            trial.report.skipped += 1
        else:
            trial.compared(int(old.answers.labels[0]) == label)

    async def _shadow(self, trial: Tryout, loaded: LoadedFamily, like: VariantProfile, label: int, row: Inputs) -> None:
        residency = self._gateway.residency
        if residency is not None and self._is_running(trial):
            # Copies load nothing by themselves, and nobody else asks for it.
            residency.asked(trial.loaded.family.name, 1)
        copies = [await self._copy(one, like, row) for one in (loaded, trial.loaded)]
        old, new = [None if copy is None else await copy for copy in copies]
        if old is None or new is None or not old.record.variant:
            trial.report.skipped += 1
            return
        trial.answered(False, old.record.compute_s)
        if new.record.variant:
            trial.report.answers += 1
            trial.answered(True, new.record.compute_s)
            trial.compared(int(new.answers.labels[0]) == label)
        elif new.record.reason is Reason.QUARANTINED or (
            new.record.outcome is Outcome.FAILED and new.record.reason is not Reason.SHUTDOWN
        ):
            trial.compared(False)
        else:
            trial.report.skipped += 1
            trial.gave_up(True, new.record.compute_s)

    async def _copy(self, loaded: LoadedFamily, like: VariantProfile, row: Inputs) -> asyncio.Future[Answer] | None:
        """Have the counterpart of a variant answer a row in spare time; `None` where that cannot be now."""
        try:
            rows = await prepared(loaded, row)
        except ProtocolError:
            return None
        family = self._gateway.for_spare_time(loaded.family.name)
        if family is None or family.revision != loaded.family.revision:
            return None
        return self._asked(family, like, size_classes(loaded, rows)[0], rows.values[0])

    def _asked(self, family: Family, like: VariantProfile, size_class: int, row: Any) -> asyncio.Future[Answer] | None:
        variant = counterpart(family, like)
        if variant is None or self._spare is None or not self._spare.room():
            return None
        return self._spare.ask(family, variant, size_class, row)


def _variant(loaded: LoadedFamily, answer: Answer) -> VariantProfile:
    """The variant that gave the first row its answer."""
    index = loaded.family.index(answer.record.row_variants[0])
    assert index is not None, "who answered belongs to the revision"
    return loaded.family.variants[index]


def _first_row(inputs: Inputs) -> Inputs:
    """A copy: a view would keep all rows of a large request in memory."""
    return {name: rows[:1].copy() for name, rows in inputs.items()}
