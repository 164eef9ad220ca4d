"""Trials of revisions as operators and verdicts begin and end them; what `/admin/canaries` shows and does."""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import replace

import orjson

from router.canary import Trial, Verdict
from router.family import Share
from service.canary_trial import State, Tryout
from service.gateway import Gateway, Phase
from service.hidden_families import hidden_name
from service.loaded_family import LoadedFamily
from service.oip.errors import ProtocolError
from service.repository_control import RepositoryControl
from service.swapping import exchange, open_smallest, without_folder
from variants.repository import RepositoryError
from variants.session import ModelLoadError

logger = logging.getLogger("pareto.canaries")

_ROLL_BACK = {
    Verdict.DISAGREES: (State.DISAGREES, "it answered differently more often than it may"),
    Verdict.BROKEN: (State.BROKEN, "a variant of it broke: the log says which and how"),
    Verdict.SLOW: (State.SLOW, "too many of its answers were slower than the old revision's usual worst"),
}


class CanaryControl:
    """Begins and ends the trials of a gateway, one thing at a time with what `control` loads and unloads."""

    def __init__(self, gateway: Gateway, control: RepositoryControl) -> None:
        self._gateway = gateway
        self._control = control
        self._numbers = itertools.count(1)
        self._concluding: set[asyncio.Task[None]] = set()
        gateway.canaries.decided = self._conclude

    async def start(self, model: str, revision: str, rules: Trial) -> None:
        """Load a revision beside the one that serves, and try it by these rules.

        The trial that runs ends; if it is one of the same revision, only its rules change and all counts begin anew.
        Raises `ProtocolError` 404 for a model that is not served, 400 for a revision that cannot be tried.
        """
        gateway, canaries = self._gateway, self._gateway.canaries
        async with self._control.turn:
            repository, scheduler = self._control.ready(model)
            served = gateway.families.get(model)
            if served is None:
                raise ProtocolError(404, f"model {model[:80]!r} is not loaded: a trial needs a revision that serves")
            if served.family.revision == revision:
                raise ProtocolError(400, f"revision {revision[:80]!r} of {model} serves already: try another one")
            running = canaries.trials.get(model)
            if running is not None and running.report.revision == revision:
                canaries.add(running.loaded, model, served.family.revision, rules, is_shared=running.is_shared)
                return
            # A build makes its revision the active one: until it is promoted, a restart is to serve the old one.
            await self._control.activate(repository, model, served.family.revision)
            hidden = hidden_name(model, revision, next(self._numbers))
            try:
                loaded, piece = await asyncio.to_thread(gateway.reader.read, model, revision, hidden)
                self._check(served, loaded, revision)
                if piece is not None and gateway.residency is not None:
                    await open_smallest(piece, gateway.residency)
            except (RepositoryError, ModelLoadError) as error:
                raise ProtocolError(
                    400, f"failed to load {model!r}: {without_folder(error, repository.root)}"
                ) from None
            loaded = replace(loaded, family=replace(loaded.family, share=_part(loaded.family.share, rules.share)))
            if piece is not None:
                piece.loaded = loaded
            family = loaded.family if piece is None else piece.family()
            prepared = await asyncio.to_thread(scheduler.prepare, family, gateway.settings.margin_of(model))
            if gateway.phase is not Phase.READY:
                raise gateway.unavailable()
            canaries.end(model, State.STOPPED, f"a trial of revision {revision} began")

            def begin(now: float) -> None:
                canaries.families[hidden] = loaded
                scheduler.replace(prepared, now)

            await exchange(gateway, hidden, piece, begin)
            canaries.add(loaded, model, served.family.revision, rules, is_shared=piece is None)
            hints = gateway.outer_loop.hints if gateway.outer_loop is not None else None
            if hints is not None:
                gateway.advise(hints)

    async def promote(self, model: str) -> None:
        """Let the revision on trial take the other one's place now. Raises `ProtocolError` 404 where there is none."""
        async with self._control.turn:
            trial = self._running(model)
            await self._control.load_in_turn(model, trial.report.revision, trial=trial)

    def roll_back(self, model: str) -> None:
        """Have the revision on trial answer nobody any more. Raises `ProtocolError` 404 where there is none."""
        self._running(model)
        self._gateway.canaries.end(model, State.STOPPED, "rolled back by hand")

    async def act(self, model: str, wanted: str) -> bytes:
        """`promote` or `rollback` the trial of a model, and say how it stands then. Raises `ProtocolError`."""
        if wanted == "promote":
            await self.promote(model)
        else:
            self.roll_back(model)
        return orjson.dumps(self._gateway.canaries.reports[model].shown())

    def listed(self) -> bytes:
        """The last trial of each model, as JSON."""
        return orjson.dumps([report.shown() for report in self._gateway.canaries.reports.values()])

    def _running(self, model: str) -> Tryout:
        trial = self._gateway.canaries.trials.get(model)
        if trial is None:
            raise ProtocolError(404, f"no trial of {model[:80]!r} runs")
        return trial

    def _check(self, served: LoadedFamily, new: LoadedFamily, revision: str) -> None:
        """Raise `ProtocolError` 400 where one revision cannot stand in for the other."""
        for what in ("inputs", "outputs", "labels"):
            if getattr(served.manifest, what) != getattr(new.manifest, what):
                raise ProtocolError(
                    400,
                    f"revision {revision!r} of {new.name} has other {what} than {served.family.revision!r}: "
                    "callers would notice; load it without a trial",
                )
        floor = self._gateway.defaults(new.name).min_accuracy
        best = new.family.variants[new.family.rungs[-1]].quality
        if best < floor:
            raise ProtocolError(
                400,
                f"revision {revision!r} of {new.name}: its best variant was measured at {best:.4f}, below the "
                f"min_accuracy of {floor:g} in the settings: it could answer nobody",
            )

    def _conclude(self, trial: Tryout) -> None:
        """A trial has its verdict: act on it."""
        model, verdict = trial.report.model, trial.verdict
        if verdict is Verdict.PROMOTED and trial.report.rules.shadow:
            trial.report.state = State.PASSED
            trial.report.why = "it answers as it should: promote it or roll it back"
            logger.info("family %s: shadow of revision %s passed", model, trial.report.revision)
        elif verdict is Verdict.PROMOTED:
            task = asyncio.get_running_loop().create_task(self._promote(trial))
            self._concluding.add(task)
            task.add_done_callback(self._concluding.discard)
        else:
            self._gateway.canaries.end(model, *_ROLL_BACK[verdict])

    async def _promote(self, trial: Tryout) -> None:
        canaries, model = self._gateway.canaries, trial.report.model
        why = ""
        try:
            async with self._control.turn:
                if canaries.is_running(trial):
                    await self._control.load_in_turn(model, trial.report.revision, trial=trial)
        except ProtocolError as error:
            why = error.message
        except Exception as error:
            logger.exception("family %s: a fault that nobody foresaw", model)
            why = f"{type(error).__name__}: see the log"
        # Where it serves, but could not be made the active revision, its trial has ended well.
        if why and canaries.is_running(trial):
            canaries.end(model, State.FAILED, why)


def _part(share: Share, part: float) -> Share:
    """The share of a crowded machine of those who try: a part of the family's own, which goes on to have all of it."""
    return Share(share.weight * part, 0.0)
