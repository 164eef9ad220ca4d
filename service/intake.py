"""The way in for requests: from decoded tensors and terms to an answer, or to the refusal that they get at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from router.contract import Record
from router.request import UNKNOWN, Origin, Request
from router.words import Outcome, Reason, WhenLate
from service.asked import Asked, new_request
from service.canary_trial import Tryout
from service.eligibility import check_request
from service.exchange import Receive
from service.hidden_families import falls_back, unmasked
from service.loaded_family import LoadedFamily
from service.oip.errors import DroppedError, DroppedReason, ProtocolError, dropped
from service.oip.terms import Terms
from service.preparing import prepared, size_classes
from service.room_words import TOO_LARGE
from service.work import Answer
from variants.preparation import Rows

if TYPE_CHECKING:
    from service.gateway import Gateway

EXPIRES_S = 0.01
"""Who is given up less than this before its timeout is left to expire."""


class Intake:
    """Takes in the requests of one replica, whichever protocol they came by."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._held: dict[str, asyncio.Event] = {}

    async def infer(
        self,
        family: str,
        inputs: Mapping[str, NDArray[Any]],
        terms: Terms,
        arrival_s: float,
        variant: str | None = None,
        receive: Receive | None = None,
        origin: Origin = UNKNOWN,
    ) -> tuple[Answer, LoadedFamily]:
        """Answer one request: prepare, queue, run. Floating-point `inputs` are finite.

        `arrival_s` is when it was received (`time.monotonic`); the SLO counts from there. The request is drawn for an
        audit or a trial by the name in its `origin`. Returns the answer and the revision that gave it. Raises
        `ProtocolError` for what is wrong with the request itself and for a replica that takes none; any other end is
        in the record.
        """
        gateway = self._gateway
        asked = Asked(inputs, terms, arrival_s, variant, receive, origin.name or str(gateway.next_id()), origin)
        if gateway.canaries.trials:
            await self._released(family)
            loaded = gateway.loaded(family)
            check_request(loaded, variant, terms.min_accuracy, terms.floor_by)
            trial = gateway.canaries.trial_for(loaded, variant, terms.min_accuracy, asked.drawn_by)
            if trial is not None and gateway.dispatcher is not None:
                # A drain waits for it, also where it is between two revisions.
                with gateway.dispatcher.expecting():
                    return await self._first_tried(trial, family, asked)
        request, loaded, rows, answer = await self._served(family, asked)
        if gateway.audits is not None:
            gateway.audits.consider(request, asked.name, rows.values[0], answer)
        return answer, loaded

    def refusal(self, family: str, variant: str | None, terms: Terms, record: Record) -> DroppedError:
        """What a caller is told of a request for that, or for the family as a whole, which ended without an answer."""
        residency = self._gateway.residency
        room = None if residency is None or record.reason is not Reason.NOT_LOADED else residency.room
        if room is not None and room.lacks_room(family, variant):
            return DroppedError(503, f"{variant or family} {TOO_LARGE}", reason=DroppedReason.NOT_LOADED)
        loaded = self._gateway.families.get(family)
        return dropped(
            record.outcome,
            record.reason,
            family=family,
            within=terms.within,
            retry_after_s=record.retry_after_s or 1.0,
            quickest_s=0.0 if loaded is None else self.quickest_s(loaded, variant, record.rows),
        )

    def quickest_s(self, loaded: LoadedFamily, variant: str | None = None, rows: int = 1) -> float:
        """What so many rows take at the least, by what was measured, and learnt since where that is less."""
        gateway = self._gateway
        named = None if variant is None else loaded.family.index(variant)
        quickened = 1.0 if gateway.scheduler is None else gateway.scheduler.quickened(loaded.name)
        return quickened * loaded.family.quickest_s(named, rows, gateway.settings.slot_count)

    async def _first_tried(self, trial: Tryout, family: str, asked: Asked) -> tuple[Answer, LoadedFamily]:
        """The answer of the revision on trial, or that of the one that serves where the other gives none."""
        asked = asked._replace(drawn=True)
        tried = await self._try(trial, asked)
        if tried is not None:
            record = tried.record
            if not falls_back(record):
                return tried._replace(record=unmasked(record)), trial.loaded
            asked = asked._replace(again=True, charged=record.charged)
            if record.outcome is Outcome.FAILED:
                # The time that this took is not the caller's fault.
                asked = asked._replace(terms=asked.terms._replace(when_late=WhenLate.SERVE))
        _, loaded, _, answer = await self._served(family, asked)
        why = None if tried is None else tried.record
        self._gateway.canaries.fell_back(trial, why, asked.variant is not None, answer.record)
        return answer, loaded

    async def _served(self, family: str, asked: Asked) -> tuple[Request, LoadedFamily, Rows, Answer]:
        """Ask the revision that serves."""
        gateway = self._gateway
        while True:
            await self._released(family)
            if not self._takes(asked):
                raise gateway.unavailable()
            loaded = gateway.known(family)
            check_request(loaded, asked.variant, asked.terms.min_accuracy, asked.terms.floor_by)
            rows = await prepared(loaded, asked.inputs)
            if family not in self._held and gateway.families.get(family) is loaded:
                break
        request, pending = self._submitted(loaded, rows, asked)
        if gateway.canaries.trials and not asked.drawn:
            # As in `_try`: both revisions are held to account for who gives up.
            pending.add_done_callback(partial(self._was_served, loaded, asked))
            return request, loaded, rows, await self._ended(request, asyncio.shield(pending))
        return request, loaded, rows, await self._ended(request, pending)

    async def _try(self, trial: Tryout, asked: Asked) -> Answer | None:
        """Ask the revision on trial; `None` where the trial has ended meanwhile or the rows are refused."""
        try:
            rows = await prepared(trial.loaded, asked.inputs)
        except ProtocolError:
            return None
        if not self._gateway.canaries.is_running(trial):
            return None
        request, pending = self._submitted(trial.loaded, rows, asked)
        # Not behind the answer: the caller may have given up by then, and that is to count as well.
        pending.add_done_callback(partial(self._tried, trial, asked))
        return await self._ended(request, asyncio.shield(pending))

    def _tried(self, trial: Tryout, asked: Asked, answer: asyncio.Future[Answer]) -> None:
        self._gateway.canaries.tried(trial, asked.inputs, asked.variant is not None, answer.result())

    def _was_served(self, loaded: LoadedFamily, asked: Asked, answer: asyncio.Future[Answer]) -> None:
        canaries, pinned = self._gateway.canaries, asked.variant is not None
        canaries.served(loaded, asked.inputs, asked.drawn_by, pinned, answer.result())

    def _submitted(self, loaded: LoadedFamily, rows: Rows, asked: Asked) -> tuple[Request, asyncio.Future[Answer]]:
        gateway = self._gateway
        classes = size_classes(loaded, rows)
        request = self._request(loaded, classes, asked.terms, asked.arrival_s, asked.variant, asked.origin)
        if asked.charged:
            request = request._replace(charged=True)
        if gateway.dispatcher is None or not self._takes(asked):
            raise gateway.unavailable()
        pending = gateway.dispatcher.submit(request, rows.values, asked.receive)
        if gateway.residency is not None:
            gateway.residency.asked(request.family, len(request.row_classes))
        return request, pending

    async def _ended(self, request: Request, answer: asyncio.Future[Answer]) -> Answer:
        """The end of a request; where the task that waits for it is cancelled, as gRPC does, so is the request."""
        try:
            return await answer
        except asyncio.CancelledError:
            dispatcher = self._gateway.dispatcher
            # At its timeout the protocol gives a call up by itself, about when the scheduler lets the request expire.
            if dispatcher is not None and monotonic() < request.timeout_s - EXPIRES_S:
                dispatcher.cancel(request.id)
            raise

    def _takes(self, asked: Asked) -> bool:
        """Whether a request is taken in now; one that is asked again was before, and a drain waits for it."""
        gateway = self._gateway
        if gateway.is_ready:
            return True
        return asked.again and gateway.dispatcher is not None and not gateway.dispatcher.closed

    async def _released(self, family: str) -> None:
        """Wait until requests for a family are not held any more."""
        if family in self._held:
            await self._held[family].wait()

    def refuses(self, loaded: LoadedFamily, terms: Terms, arrival_s: float, origin: Origin) -> Reason | None:
        """Why a request on these terms is refused whatever its rows are: its time is over or taken by others.

        In overload that saves decoding and preparing what is not answered anyway. The refusal is recorded.
        """
        gateway = self._gateway
        if gateway.dispatcher is None or not gateway.is_ready or terms.slo_s is None:
            return None
        return gateway.dispatcher.refuses(self._request(loaded, (0,), terms, arrival_s, None, origin))

    def over_quota(self, loaded: LoadedFamily, terms: Terms, arrival_s: float, origin: Origin) -> float:
        """Seconds until the tenant may have a row again, where it may not now; else 0.0. The refusal is recorded."""
        gateway = self._gateway
        if gateway.dispatcher is None or not gateway.is_ready:
            return 0.0
        return gateway.dispatcher.refuses_quota(self._request(loaded, (0,), terms, arrival_s, None, origin))

    def _request(
        self,
        loaded: LoadedFamily,
        row_classes: tuple[int, ...],
        terms: Terms,
        arrival_s: float,
        variant: str | None,
        origin: Origin,
    ) -> Request:
        gateway = self._gateway
        number, settings, tenants = gateway.next_id(), gateway.settings, gateway.tenants
        return new_request(number, loaded, row_classes, terms, arrival_s, variant, origin, settings, tenants)

    @asynccontextmanager
    async def held(self, family: str) -> AsyncIterator[bool]:
        """Requests for a family that come now wait until the block ends; it begins when those before have ended.

        False where some have not after the drain time.
        """
        gateway = self._gateway
        assert gateway.dispatcher is not None, "called once requests are taken"
        released = self._held[family] = asyncio.Event()
        # What waits for spare time would have everybody wait for it.
        gateway.canaries.give_up(family)
        if gateway.audits is not None:
            gateway.audits.give_up(family)
        try:
            yield await gateway.quiet(family)
        finally:
            del self._held[family]
            released.set()

    def is_held(self, family: str) -> bool:
        """Whether requests for a family that come now wait."""
        return family in self._held

    def remember(self, family: str, name: str, said: str | None, answer: Answer) -> None:
        """Keep an answer for feedback under the request's id, and under the one in its body, if there is one."""
        gateway = self._gateway
        if gateway.settings.feedback_bytes:
            gateway.feedback.remember(family, name, answer, answer.record.finished_s)
            if said and said != name:
                gateway.feedback.remember(family, said, answer, answer.record.finished_s)
