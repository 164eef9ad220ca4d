"""`POST /v2/models/{family}[/versions/{variant}]/infer`: decode, answer, encode, and say what was decided and why."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from router.contract import Escalation, Origin, Outcome, Reason, Record
from service.exchange import JSON, ClientGone, RawHeaders, Receive, Scope, Send, read_body, send_error, send_whole
from service.gateway import Gateway
from service.loading import LoadedFamily
from service.loop_lag import ArrivalClock
from service.oip.compression import compress, decompress
from service.oip.decode import InferRequest, Limits, decode_infer
from service.oip.encode import encode_infer
from service.oip.errors import ProtocolError, dropped, malformed
from service.oip.headers import RequestHeaders, read_headers
from service.oip.terms import read_terms
from service.orca import REPORT_HEADER, load_report
from service.origins import Origins, echoes
from service.tenants import NO_TENANT
from service.work import Answer

logger = logging.getLogger("pareto.inference")

OCTET_STREAM = b"application/octet-stream"
DECODE_OFF_LOOP_BYTES = 64 * 1024
"""Larger bodies are decoded in a thread. The parser holds the interpreter lock, so that alone would not do: the size
of JSON is bounded, and so are the objects and lists in it, which cost the parser most."""
MOST_CONTAINERS = 20_000

COMPRESS_FROM_BYTES = 512
"""Shorter answers are not worth compressing, though the caller would take it."""

LOOSENING = (b"priority", b"slo_ms", b"when_late", b"\\")
"""What stands in a body whose parameters may ask for more than headers and defaults do; names may be escaped."""

LABEL, CONFIDENCE, PROBABILITIES = "label", "confidence", "probabilities"


class InferenceHandler:
    """Answers inference requests of one replica."""

    def __init__(self, gateway: Gateway) -> None:
        settings = gateway.settings
        self._gateway = gateway
        self._limit_bytes = settings.max_body_bytes
        self._limit_json_bytes = settings.max_json_bytes
        self._limit_inflight_bytes = settings.max_inflight_bytes
        self._inflight_bytes = 0
        self._limits = Limits(max_rows=settings.max_rows)
        self._origins = Origins(lambda: gateway.settings)
        self._arrivals = ArrivalClock()

    async def handle(self, family: str, variant: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, with a refusal where it cannot be answered."""
        arrival_s = self._arrivals.arrival_s()
        echoed: RawHeaders = []
        held_bytes = 0
        try:
            headers = read_headers(scope["headers"])
            origin = self._origins.of(headers, scope["path"])
            echoed = echoes(origin, headers)
            loaded = self._gateway.loaded(family)
            held_bytes = self._hold(headers)
            body = await read_body(receive, self._limit_bytes, headers.content_length)
            if refusal := self._refusal(loaded, variant, headers, body, arrival_s, origin):
                await send_error(send, refusal, echoed)
                return
            if len(body) > DECODE_OFF_LOOP_BYTES or headers.content_encoding:
                request = await asyncio.to_thread(self._decode, loaded, body, headers)
            else:
                request = self._decode(loaded, body, headers)
            terms = read_terms(headers, request.parameters, self._gateway.defaults(family))
            answer, loaded = await self._gateway.intake.infer(
                family, request.inputs, terms, arrival_s, variant, receive, origin
            )
            record = answer.record
            if record.outcome is not Outcome.SERVED and record.outcome is not Outcome.SERVED_LATE:
                if record.outcome is Outcome.CANCELLED:
                    return
                await send_error(send, dropped(record.outcome, record.reason, record.retry_after_s or 1.0), echoed)
                return
            self._gateway.intake.remember(family, origin.name, request.id, answer)
            content, json_length = encode_infer(
                family,
                record.variant,
                request.id,
                loaded.signature,
                _outputs(loaded, answer, request),
                request.outputs,
                request.binary_default,
                _decision(record),
            )
            echoed += self._decision_headers(record, loaded)
            if headers.load_metrics:
                echoed.append((REPORT_HEADER, self._load_report(headers.load_metrics)))
            content_type = JSON
            if json_length is not None:
                content_type = OCTET_STREAM
                echoed.append((b"inference-header-content-length", b"%d" % json_length))
            if headers.accept_encoding and len(content) >= COMPRESS_FROM_BYTES:
                content, coding = compress(content, headers.accept_encoding)
                if coding is not None:
                    echoed.append((b"content-encoding", coding.encode()))
            await send_whole(send, 200, content, content_type, echoed)
        except ProtocolError as error:
            self._gateway.metrics.protocol_error(error.status)
            await send_error(send, error, echoed)
        except ClientGone:
            return
        except Exception:
            logger.exception("request %s failed", scope["path"])
            self._gateway.metrics.protocol_error(500)
            await send_error(send, ProtocolError(500, "internal error"), echoed)
        finally:
            self._inflight_bytes -= held_bytes

    def _decision_headers(self, record: Record, loaded: LoadedFamily) -> RawHeaders:
        """What is said of the decision; while a trial runs, and of who was on trial, also which revision answered."""
        said, gateway = _decision_headers(record), self._gateway
        if record.family in gateway.canaries.trials or gateway.families.get(record.family) is not loaded:
            said.append((b"x-revision", record.revision.encode()))
        return said

    def _refusal(
        self,
        loaded: LoadedFamily,
        variant: str | None,
        headers: RequestHeaders,
        body: bytes,
        arrival_s: float,
        origin: Origin,
    ) -> ProtocolError | None:
        """The refusal of a request that has no chance whatever its body says, as far as is known without decoding it.

        Its tenant has used up its quota: no parameter changes whose request it is. Or it is hopeless: parameters
        replace defaults and may let a request go before others; a body that may have such ones, or that cannot be
        searched for them, goes the long way, and so does a pinned request.
        """
        gateway = self._gateway
        loosened = variant is not None or headers.content_encoding or any(word in body for word in LOOSENING)
        limited = gateway.tenants.is_limited(headers.tenant or NO_TENANT)
        if loosened and not limited:
            return None
        terms = read_terms(headers, {}, gateway.defaults(loaded.name))
        if limited and (wait_s := gateway.intake.over_quota(loaded, terms, arrival_s, origin)):
            return dropped(Outcome.REJECTED_QUOTA, Reason.QUOTA, wait_s)
        if not loosened and (reason := gateway.intake.refuses(loaded, terms, arrival_s, origin)) is not None:
            return dropped(Outcome.REJECTED_INFEASIBLE, reason)
        return None

    def _load_report(self, form: str) -> bytes:
        """What a load balancer that asks for it may weigh replicas by."""
        scheduler = self._gateway.scheduler
        assert scheduler is not None, "a replica that answers has one"
        return load_report(form, scheduler.busy_slots, self._gateway.settings.slot_count, scheduler.queued_rows)

    def _hold(self, headers: RequestHeaders) -> int:
        """Reserve memory for a body before it is read; one without a declared length may be as large as any."""
        wanted_bytes = self._limit_bytes if headers.content_length is None else headers.content_length
        wanted_bytes = min(wanted_bytes, self._limit_bytes)
        if self._inflight_bytes + wanted_bytes > self._limit_inflight_bytes:
            raise ProtocolError(
                503, "too many bytes in flight, try again later", reason="backlog_full", retry_after_s=1
            )
        self._inflight_bytes += wanted_bytes
        return wanted_bytes

    def _decode(self, loaded: LoadedFamily, body: bytes, headers: RequestHeaders) -> InferRequest:
        if headers.content_encoding:
            body = decompress(body, headers.content_encoding, self._limit_bytes)
        json_bytes = min(len(body), headers.inference_header_length or len(body))
        if json_bytes > self._limit_json_bytes:
            raise ProtocolError(
                413,
                f"body: expected at most {self._limit_json_bytes} bytes of JSON, got {json_bytes}; send raw tensors",
            )
        if json_bytes > MOST_CONTAINERS:
            containers = body.count(b"[", 0, json_bytes) + body.count(b"{", 0, json_bytes)
            if containers > MOST_CONTAINERS:
                raise malformed("body", f"at most {MOST_CONTAINERS} lists and objects", f"{containers}; send flat data")
        return decode_infer(body, headers.inference_header_length, loaded.signature, self._limits)


def _outputs(loaded: LoadedFamily, answer: Answer, request: InferRequest) -> dict[str, NDArray[Any]]:
    """Only what is wanted is computed."""
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


def _decision(record: Record) -> Mapping[str, str | float | bool]:
    said: dict[str, str | float | bool] = {
        "variant": record.variant,
        "route_reason": record.reason,
        "slo_met": record.slo_met,
        "route_path": ",".join(record.path),
        "escalation": record.escalation,
    }
    if record.escalation is not Escalation.NONE:
        said["first_confidence"] = record.confidence
    if record.variant == "mixed":
        said["row_variants"] = ",".join(record.row_variants)
    return said


def _decision_headers(record: Record) -> RawHeaders:
    total_s = record.finished_s - record.arrival_s
    timing = b"queue;dur=%.3f, compute;dur=%.3f, total;dur=%.3f"
    said = [
        *_choice_headers(record.variant, record.reason, record.slo_met, record.path, record.escalation),
        (b"server-timing", timing % (record.queue_s * 1e3, record.compute_s * 1e3, total_s * 1e3)),
    ]
    if record.cold:
        said.append((b"x-cold", b"true"))
    if record.escalation is not Escalation.NONE:
        said.append((b"x-first-confidence", b"%.4f" % record.confidence))
    return said


@lru_cache(maxsize=4096)
def _choice_headers(
    variant: str, reason: Reason, slo_met: bool, path: tuple[str, ...], escalation: Escalation
) -> tuple[tuple[bytes, bytes], ...]:
    """The same few for every request: kept, because making them costs more than finding them."""
    return (
        (b"x-variant", variant.encode()),
        (b"x-route-reason", reason.encode()),
        (b"x-slo-met", b"true" if slo_met else b"false"),
        (b"x-route-path", ",".join(path).encode()),
        (b"x-escalation", escalation.encode()),
    )
