"""One record as the spans of a trace, made after the fact: nothing is opened while a request is on its way.

    POST /v2/models/{model}/infer                 arrival to outcome (inference.GRPCInferenceService/ModelInfer)
      queue                                       arrival until a batch with the first row was decided on
      decide                                      until that batch began: no time at all unless it was decided ahead
      compute                                     until its answer was there
      escalate                                    until a better variant's answer was there, or was given up
        queue, decide, compute

Names of attributes are OpenTelemetry's where there are any (semantic conventions for HTTP and gRPC server spans), else
they begin with `pareto.`. As those conventions want it, only answers of HTTP status 500 and above are errors, and what
those are over gRPC: a request that was shed is none.
"""

from __future__ import annotations

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from router.contract import Record, Step
from router.request import NEVER
from router.words import Escalation, Outcome
from service import __version__
from service.oip.errors import GRPC_STATUS, status_of

Attributes = dict[str, str | bool | int | float]

_SCOPE = InstrumentationScope("pareto-gateway", __version__)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_IDS = RandomIdGenerator()


class RequestTrace:
    """The spans of one traced record, the request's own first. `epoch_s` makes its times seconds since 1970.

    `tenant` is the one to be shown.
    """

    def __init__(self, record: Record, tenant: str, resource: Resource, epoch_s: float) -> None:
        self.spans: list[ReadableSpan] = []
        self._record = record
        self._resource = resource
        self._epoch_s = epoch_s
        self._trace = int(record.origin.trace, 16)
        self._request(tenant)

    def _request(self, tenant: str) -> None:
        record, origin = self._record, self._record.origin
        status = status_of(record)
        over = _over_http if origin.path.startswith("/v2/") else _over_grpc
        name, protocol = over(origin.path, status)
        attributes: Attributes = {
            **protocol,
            "pareto.request_id": origin.name,
            "pareto.model": record.family,
            "pareto.revision": record.revision,
            "pareto.outcome": record.outcome.value,
            "pareto.reason": record.reason.value,
            "pareto.rows": record.rows,
            "pareto.tenant": tenant,
            "pareto.service_class": record.service_class,
            "pareto.slo_met": record.slo_met,
            "pareto.cold": record.cold,
        }
        if record.slo_s != NEVER:
            attributes["pareto.slo_ms"] = 1e3 * record.slo_s
        if record.variant:
            attributes["pareto.variant"] = record.variant
            attributes["pareto.path"] = ",".join(record.path)
            attributes["pareto.quality"] = record.quality
            attributes["pareto.escalation"] = record.escalation.value
        fault = status >= 500
        if fault:
            attributes["error.type"] = record.reason.value
        own = self._context(int(origin.span, 16))
        caller = self._context(int(origin.parent, 16), remote=True) if origin.parent else None
        self._add(name, own, caller, record.arrival_s, record.finished_s, attributes, fault=fault, server=True)
        self._steps(own)

    def _steps(self, request: SpanContext) -> None:
        record = self._record
        if not record.steps:
            # It ended before its first row had an answer.
            started_s = record.arrival_s + record.queue_s
            self._child("queue", request, record.arrival_s, started_s)
            if record.compute_s > 0.0:
                self._child("compute", request, started_s, record.finished_s, fault=record.outcome is Outcome.FAILED)
            return
        first, *others = record.steps
        self._step(first, request, record.arrival_s)
        since = first
        for step in others:
            about: Attributes = {"pareto.from_variant": since.variant, "pareto.to_variant": step.variant}
            escalate = self._child("escalate", request, since.ended_s, step.ended_s, about)
            self._step(step, escalate, since.ended_s)
            since = step
        if record.escalation in (Escalation.NO_TIME, Escalation.FAILED):
            about = {"pareto.from_variant": since.variant, "pareto.escalation": record.escalation.value}
            fault = record.escalation is Escalation.FAILED
            self._child("escalate", request, since.ended_s, record.finished_s, about, fault=fault)

    def _step(self, step: Step, parent: SpanContext, since_s: float) -> None:
        self._child("queue", parent, since_s, step.decided_s)
        decided: Attributes = {
            "pareto.variant": step.variant,
            "pareto.reason": step.reason.value,
            "pareto.predicted_ms": 1e3 * step.predicted_s,
        }
        self._child("decide", parent, step.decided_s, step.started_s, decided)
        ran: Attributes = {"pareto.variant": step.variant, "pareto.batch_rows": step.rows}
        self._child("compute", parent, step.started_s, step.ended_s, ran)

    def _child(
        self,
        name: str,
        parent: SpanContext,
        start_s: float,
        end_s: float,
        attributes: Attributes | None = None,
        *,
        fault: bool = False,
    ) -> SpanContext:
        own = self._context(_IDS.generate_span_id())
        self._add(name, own, parent, start_s, end_s, attributes or {}, fault=fault)
        return own

    def _add(
        self,
        name: str,
        own: SpanContext,
        parent: SpanContext | None,
        start_s: float,
        end_s: float,
        attributes: Attributes,
        *,
        fault: bool,
        server: bool = False,
    ) -> None:
        self.spans.append(
            ReadableSpan(
                name,
                own,
                parent,
                self._resource,
                attributes,
                kind=SpanKind.SERVER if server else SpanKind.INTERNAL,
                status=Status(StatusCode.ERROR if fault else StatusCode.UNSET),
                start_time=self._ns(start_s),
                end_time=self._ns(max(start_s, end_s)),
                instrumentation_scope=_SCOPE,
            )
        )

    def _context(self, span: int, *, remote: bool = False) -> SpanContext:
        return SpanContext(self._trace, span, is_remote=remote, trace_flags=_SAMPLED)

    def _ns(self, at_s: float) -> int:
        return round((at_s + self._epoch_s) * 1e9)


def _over_http(path: str, status: int) -> tuple[str, Attributes]:
    """The name of a request's span, and what HTTP says of it."""
    route = "/v2/models/{model}" + ("/versions/{variant}/infer" if "/versions/" in path else "/infer")
    return f"POST {route}", {
        "http.request.method": "POST",
        "http.response.status_code": status,
        "http.route": route,
        "url.path": path,
        "url.scheme": "http",
    }


def _over_grpc(path: str, status: int) -> tuple[str, Attributes]:
    """The name of a call's span, and what gRPC says of it."""
    service, _, method = path[1:].partition("/")
    return path[1:], {
        "rpc.system": "grpc",
        "rpc.service": service,
        "rpc.method": method,
        "rpc.grpc.status_code": int(GRPC_STATUS[status]),
    }
