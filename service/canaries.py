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
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from router.canary import Trial, Verdict
from router.contract import Record, Spell
from router.words import Outcome, Reason
from service.canary_comparisons import Comparisons, Inputs
from service.canary_trial import ROLLED_BACK, Report, State, Tryout
from service.eligibility import can_answer, has_in_memory
from service.hidden_families import model_of, was_given_up
from service.loaded_family import LoadedFamily
from service.oip.errors import ProtocolError
from service.spare_time import SpareTime
from service.swapping import exchange
from service.work import Answer

if TYPE_CHECKING:
    from service.gateway import Gateway

logger = logging.getLogger("pareto.canaries")


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
        self._comparisons = Comparisons(gateway, self.is_running, self._look)
        self.retiring: set[asyncio.Task[None]] = set()
        """Those that unload what a trial has left."""

    def begin(self, spare: SpareTime) -> None:
        """Compare in this spare time from now on."""
        self._comparisons.begin(spare)

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
            if was_given_up(record) and not record.cold and not pinned:
                trial.gave_up(True, record.compute_s)
                self._look(trial)
            return
        trial.report.answers += 1
        if record.retried:
            # Another variant of the new revision saved it. The caller has an answer; what broke is counted.
            trial.compared(False)
        if not record.cold and not pinned:
            trial.answered(True, record.compute_s)
        self._comparisons.answer_again(trial, answer, inputs)
        self._look(trial)

    def fell_back(self, trial: Tryout, why: Record | None, pinned: bool, record: Record) -> None:
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
        elif why.reason is Reason.DEADLINE_INFEASIBLE and record.slo_met and not (record.cold or why.cold or pinned):
            trial.answered(True, math.inf)
            trial.answered(False, record.compute_s)
        self._look(trial)

    def broke(self, spell: Spell) -> None:
        """A variant of a revision on trial is in quarantine."""
        trial = self.trials.get(model_of(spell.family))
        if trial is not None and trial.loaded.family.name == spell.family:
            trial.broke()
            self._look(trial)

    def served(self, loaded: LoadedFamily, inputs: Inputs, name: str, pinned: bool, answer: Answer) -> None:
        """The old revision answered a request that was its own from the start, or it ended by its caller's doing."""
        trial, record = self.trials.get(loaded.name), answer.record
        if trial is None or trial.report.serving != loaded.family.revision:
            return
        if trial.canary.trial.shadow:
            if record.variant and trial.canary.copies(name):
                self._comparisons.shadow(trial, loaded, answer, inputs)
        elif record.cold or pinned:
            return
        elif record.variant:
            trial.answered(False, record.compute_s)
        elif was_given_up(record):
            trial.gave_up(False, record.compute_s)
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
        self._comparisons.give_up(family)

    def stop(self) -> None:
        """The replica drains: nothing is tried or compared any more."""
        self.trials.clear()
        self._comparisons.stop()

    def close(self) -> None:
        """Nothing is unloaded any more either."""
        self._comparisons.close()
        for task in self.retiring:
            task.cancel()

    # Steps

    def _look(self, trial: Tryout) -> None:
        if trial.verdict is not Verdict.RUNNING and not trial.concluded:
            trial.concluded = True
            self.decided(trial)

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
