"""Canaries and shadows: another revision of a family beside the one that serves, for a share of the callers.

1. The revision on trial is a family of its own to the scheduler, under a hidden name (`service.hidden_families`): one
   backlog and one price of time for both.
2. A trial turns no good request into an error. What the new revision cannot answer by its variants or their quality
   never gets there; what it refuses or fails on is answered by the old one.
3. Both are compared by what callers got: a row that one answered is answered again by the other in spare time, with the
   variant that is its counterpart.
4. Timed are the seconds from the first batch to the answer, not those in the queue: a slow revision makes both wait.
   Of a shadow, both revisions answer a copy in spare time, so that what is timed was treated alike.
5. Whatever ends a trial, requests on their way at the new revision get their answers from it before it is unloaded.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from router.canary import Trial, Verdict
from router.contract import Record, Spell
from router.family import Family, VariantProfile
from router.words import Outcome, Reason
from service.canary_trial import ROLLED_BACK, Report, State, Tryout, counterpart
from service.eligibility import can_answer, has_in_memory
from service.hidden_families import falls_back, model_of
from service.loading import LoadedFamily
from service.oip.errors import ProtocolError
from service.preparing import prepared, size_classes
from service.spare_time import MOST_RUNNING, SpareTime
from service.swapping import exchange
from service.work import Answer

if TYPE_CHECKING:
    from service.gateway import Gateway

logger = logging.getLogger("pareto.canaries")

Inputs = Mapping[str, NDArray[Any]]


class Canaries:
    """The trials of one replica, one a model at a time.

    `families` has the revisions on trial by hidden name, those included that only finish what they have. `reports` has
    the last trial of each model. `decided` is called once with a trial that has its verdict.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.families: dict[str, LoadedFamily] = {}
        self.trials: dict[str, Tryout] = {}
        self.reports: dict[str, Report] = {}
        self.decided: Callable[[Tryout], None] = lambda _: None
        self._spare: SpareTime | None = None
        self._comparing: set[asyncio.Task[None]] = set()
        self.retiring: set[asyncio.Task[None]] = set()
        """Those that unload what a trial has left."""

    def begin(self, spare: SpareTime) -> None:
        """Compare in this spare time from now on."""
        self._spare = spare

    # What the way of a request asks and tells

    def trial_for(self, loaded: LoadedFamily, variant: str | None, floor: float, name: str) -> Tryout | None:
        """The trial whose revision is to answer a request of that name instead of `loaded`, if any."""
        trial = self.trials.get(loaded.name)
        if trial is None or trial.report.serving != loaded.family.revision or not trial.canary.takes(name):
            return None
        if not can_answer(trial.loaded, variant, floor):
            return None
        if has_in_memory(trial.loaded, variant, floor):
            return trial
        # Nobody waits for a load for the sake of a trial; that somebody asks is what has it loaded.
        if self._gateway.residency is not None:
            self._gateway.residency.asked(trial.loaded.family.name, 1)
        return None

    def revision(self, model: str) -> str | None:
        """The revision of a model that is on trial."""
        trial = self.trials.get(model)
        return None if trial is None else trial.report.revision

    def is_running(self, trial: Tryout) -> bool:
        """Whether requests may still go to its revision."""
        return self.trials.get(trial.report.model) is trial

    def tried(self, trial: Tryout, inputs: Inputs, pinned: bool, answer: Answer) -> None:
        """The new revision answered a request, or the request ended by its caller's doing."""
        record = answer.record
        if not self.is_running(trial):
            return
        if not record.variant:
            if not falls_back(record) and record.reason is not Reason.SHUTDOWN:
                trial.gave_up(record.compute_s)
                self._look(trial)
            return
        trial.report.answers += 1
        if record.retried:
            # Another variant of the new revision saved it. The caller has an answer; what broke is counted.
            trial.compared(False)
        if not record.cold and not pinned:
            trial.answered(True, record.compute_s)
        like, label = self._variant(trial.loaded, record), int(answer.answers.labels[0])
        self._compare(trial, self._answer_again(trial, like, label, _first_row(inputs)))
        self._look(trial)

    def fell_back(self, trial: Tryout, why: Record | None, record: Record) -> None:
        """The old revision was asked because the new one gave no answer; `why` is `None` where it refused the rows.

        What the old one answers and the new one does not counts as a disagreement, or as too slow.
        """
        if not self.is_running(trial):
            return
        trial.report.fallbacks += 1
        if not record.variant:
            # Neither can.
            return
        if why is None or why.outcome is Outcome.FAILED or why.reason is Reason.QUARANTINED:
            trial.compared(False)
        elif why.reason is Reason.DEADLINE_INFEASIBLE and record.slo_met:
            trial.answered(True, math.inf)
        self._look(trial)

    def broke(self, spell: Spell) -> None:
        """A variant of a revision on trial is in quarantine."""
        trial = self.trials.get(model_of(spell.family))
        if trial is not None and trial.loaded.family.name == spell.family:
            trial.broke()
            self._look(trial)

    def served(self, loaded: LoadedFamily, inputs: Inputs, name: str, pinned: bool, answer: Answer) -> None:
        """The old revision answered a request that was its own from the start."""
        trial, record = self.trials.get(loaded.name), answer.record
        if trial is None or not record.variant or trial.report.serving != loaded.family.revision:
            return
        if not trial.canary.trial.shadow:
            if not record.cold and not pinned:
                trial.answered(False, record.compute_s)
        elif trial.canary.copies(name):
            label = int(answer.answers.labels[0])
            self._compare(trial, self._shadow(trial, loaded, self._variant(loaded, record), label, _first_row(inputs)))
        self._look(trial)

    # How trials begin and end

    def add(self, loaded: LoadedFamily, model: str, serving: str, rules: Trial, *, is_shared: bool) -> None:
        """The scheduler serves the hidden family: the trial begins."""
        report = Report(model, loaded.family.revision, serving, rules, monotonic())
        self.trials[model] = Tryout(report, loaded, is_shared=is_shared)
        self.reports[model] = report
        logger.info("family %s: revision %s is on trial beside %s: %s", model, report.revision, serving, rules)

    def end(self, model: str, state: State, why: str = "") -> None:
        """No more requests go to the revision on trial, if any; it is unloaded once it has answered those it has."""
        trial = self.trials.pop(model, None)
        if trial is None:
            return
        report = trial.report
        report.state, report.why, report.ended_s = state, why, monotonic()
        level = logging.WARNING if state in ROLLED_BACK else logging.INFO
        said = f": {why}" if why else ""
        logger.log(level, "family %s: trial of revision %s ended: %s%s", model, report.revision, state, said)
        self.give_up(trial.loaded.family.name)
        task = asyncio.get_running_loop().create_task(self._retire(trial.loaded))
        self.retiring.add(task)
        task.add_done_callback(self.retiring.discard)

    def forget(self, model: str) -> None:
        """The model is served no longer."""
        self.end(model, State.STOPPED, "the model was unloaded")
        self.reports.pop(model, None)

    def give_up(self, family: str) -> None:
        """Give up comparisons that wait for a family: others wait for all of its requests to end."""
        if self._spare is not None:
            self._spare.give_up(family)

    def stop(self) -> None:
        """The replica drains: nothing is tried or compared any more."""
        self.trials.clear()
        if self._spare is not None:
            self._spare.stop()

    def close(self) -> None:
        """Nothing is unloaded any more either."""
        for task in (*self._comparing, *self.retiring):
            task.cancel()

    # Steps

    def _look(self, trial: Tryout) -> None:
        if trial.verdict is not Verdict.RUNNING and not trial.concluded:
            trial.concluded = True
            self.decided(trial)

    def _variant(self, loaded: LoadedFamily, record: Record) -> VariantProfile:
        """The variant that gave the first row its answer."""
        index = loaded.family.index(record.row_variants[0])
        assert index is not None, "who answered belongs to the revision"
        return loaded.family.variants[index]

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
        if self.is_running(trial):
            self._look(trial)

    async def _answer_again(self, trial: Tryout, like: VariantProfile, label: int, row: Inputs) -> None:
        """The new revision answered a caller: ask the old one."""
        loaded = self._gateway.revision(trial.report.model, trial.report.serving)
        copy = await self._copy(loaded, like, row) if loaded is not None else None
        old = None if copy is None else await copy
        if old is None or not old.record.variant:
            trial.report.skipped += 1
        else:
            trial.compared(int(old.answers.labels[0]) == label)

    async def _shadow(self, trial: Tryout, loaded: LoadedFamily, like: VariantProfile, label: int, row: Inputs) -> None:
        """The old revision answered a caller: both answer a copy, so that what is timed was treated alike."""
        residency = self._gateway.residency
        if residency is not None and self.is_running(trial):
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
            trial.gave_up(new.record.compute_s)

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

    async def _retire(self, loaded: LoadedFamily) -> None:
        """Unload a revision once the requests that it has are answered, however long that takes."""
        gateway, hidden = self._gateway, loaded.family.name
        scheduler = gateway.scheduler
        assert scheduler is not None, "it served the trial"

        def remove(now: float) -> None:
            scheduler.remove(hidden, now)
            del self.families[hidden]

        while True:
            if await gateway.quiet(hidden):
                try:
                    await exchange(gateway, hidden, None, remove)
                except ProtocolError:
                    # A batch began at the last moment.
                    continue
                return
            logger.warning("family %s: its last answers are waited for before it is unloaded", hidden)


def _first_row(inputs: Inputs) -> Inputs:
    """A copy: a view would keep all rows of a large request in memory."""
    return {name: rows[:1].copy() for name, rows in inputs.items()}
