"""One inference request between its decoding and its encoding: the same for every protocol that it may come by."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from numpy.typing import NDArray

from router.contract import Record
from router.request import Origin
from router.words import Outcome, Reason
from service.decision import decision_headers
from service.exchange import ClientGone, RawHeaders, Receive
from service.gateway import Gateway
from service.inflight import InflightBytes
from service.loaded_family import LoadedFamily
from service.loop_lag import ArrivalClock
from service.oip.errors import DroppedError, dropped
from service.oip.headers import RequestHeaders
from service.oip.request import InferRequest, Limits
from service.oip.terms import read_terms
from service.orca import REPORT_HEADER, load_report
from service.origins import Origins
from service.tenants import NO_TENANT
from service.work import Answer

LOOSENING = ("priority", "slo_ms", "when_late")
"""Parameters that may ask for more than headers and defaults do."""

CROWDED_S = 1.0
"""For so long after a request was refused, others are looked at before they are decoded, whether they have a chance. It
saves most of what they cost where many are refused, and costs a tenth of an answer where none is."""

LABEL, CONFIDENCE, PROBABILITIES = "label", "confidence", "probabilities"


class Answering:
    """Answers the inference requests of one replica.

    `limits` bound each request, `inflight` all of them together; `arrivals` says when they came, `origins` who sent
    them.
    """

    def __init__(self, gateway: Gateway) -> None:
        settings = gateway.settings
        self._gateway = gateway
        self.limits = Limits(max_rows=settings.max_rows)
        self.inflight = InflightBytes(settings.max_inflight_bytes)
        self.arrivals = ArrivalClock()
        self.origins = Origins(lambda: gateway.settings)
        self._refused_s = -inf

    def refusal(
        self,
        loaded: LoadedFamily,
        headers: RequestHeaders,
        arrival_s: float,
        origin: Origin,
        *,
        loosened: Callable[[], bool],
    ) -> DroppedError | None:
        """The refusal of a request that has no chance whatever else it says, as far as is known without decoding it.

        Its tenant has used up its quota: no parameter changes whose request it is. Or it is hopeless: parameters
        replace defaults and may let a request go before others; one that may be `loosened` so, or that names the
        variant, goes the long way, and so do all while nobody is refused. `loosened` is asked where it matters.
        """
        gateway = self._gateway
        limited = gateway.tenants.is_limited(headers.tenant or NO_TENANT)
        doubted = arrival_s - self._refused_s < CROWDED_S and not loosened()
        if not limited and not doubted:
            return None
        terms = read_terms(headers, {}, gateway.defaults(loaded.name))
        if limited and (wait_s := gateway.intake.over_quota(loaded, terms, arrival_s, origin)):
            return dropped(Outcome.REJECTED_QUOTA, Reason.QUOTA, retry_after_s=wait_s)
        if doubted and (reason := gateway.intake.refuses(loaded, terms, arrival_s, origin)) is not None:
            self._refused_s = arrival_s
            quickest_s = gateway.intake.quickest_s(loaded)
            return dropped(Outcome.REJECTED_INFEASIBLE, reason, within=terms.within, quickest_s=quickest_s)
        return None

    async def answer(
        self,
        family: str,
        variant: str | None,
        headers: RequestHeaders,
        request: InferRequest,
        arrival_s: float,
        origin: Origin,
        receive: Receive | None = None,
    ) -> tuple[Answer, LoadedFamily]:
        """The answer of a request, and the revision that gave it.

        Raises `DroppedError` where it ended without one, `ClientGone` where it was cancelled, and `ProtocolError` for
        what is wrong with the request itself.
        """
        gateway = self._gateway
        terms = read_terms(headers, request.parameters, gateway.defaults(family))
        answer, loaded = await gateway.intake.infer(family, request.inputs, terms, arrival_s, variant, receive, origin)
        record = answer.record
        if record.outcome is not Outcome.SERVED and record.outcome is not Outcome.SERVED_LATE:
            if record.outcome is Outcome.CANCELLED:
                raise ClientGone
            if record.outcome is Outcome.REJECTED_INFEASIBLE:
                self._refused_s = arrival_s
            raise gateway.intake.refusal(family, variant, terms, record)
        gateway.intake.remember(family, origin.name, request.id, answer)
        return answer, loaded

    def headers_of(self, record: Record, loaded: LoadedFamily, headers: RequestHeaders) -> RawHeaders:
        """What an answer says beside its body: of the decision, and of the load where the caller asks for it.

        While a trial runs, and of who was on trial, also which revision answered.
        """
        said, gateway = decision_headers(record), self._gateway
        if record.family in gateway.canaries.trials or gateway.families.get(record.family) is not loaded:
            said.append((b"x-revision", record.revision.encode()))
        if headers.load_metrics:
            said.append((REPORT_HEADER, self._load_report(headers.load_metrics)))
        return said

    def _load_report(self, form: str) -> bytes:
        """What a load balancer that asks for it may weigh replicas by."""
        scheduler = self._gateway.scheduler
        assert scheduler is not None, "a replica that answers has one"
        return load_report(form, scheduler.busy_slots, self._gateway.settings.slot_count, scheduler.queued_rows)


def outputs_of(loaded: LoadedFamily, answer: Answer, request: InferRequest) -> dict[str, NDArray[Any]]:
    """The outputs of an answer by name. Only what is wanted is computed."""
    wanted = [output.name for output in request.outputs] or list(loaded.signature.outputs)
    arrays: dict[str, NDArray[Any]] = {}
    for name in wanted:
        if name == LABEL:
            arrays[name] = loaded.label_names[answer.answers.labels]
        elif name == CONFIDENCE:
            arrays[name] = answer.answers.confidences
        elif name == PROBABILITIES:
            arrays[name] = answer.answers.probabilities
    return arrays
