"""BentoML's native API beside the open protocol: for `bentoml.SyncHTTPClient` and the generated docs at `/native`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from http import HTTPStatus
from time import monotonic
from types import MappingProxyType
from typing import Any

import bentoml
import numpy as np
from bentoml.exceptions import BentoMLException, InternalServerError, InvalidArgument, NotFound, ServiceUnavailable
from numpy.typing import NDArray

from router.words import Escalation, Outcome
from service.added_headers import add
from service.exchange import refusal_headers
from service.gateway import Gateway
from service.loaded_family import LoadedFamily
from service.oip.errors import ProtocolError, malformed
from service.oip.headers import NO_HEADERS, tenant_of
from service.oip.terms import read_terms
from service.work import Answer

CONVERT_OFF_LOOP_ROWS = 64
"""Longer lists of rows are turned into a tensor in a thread."""


class TooManyRequests(BentoMLException):
    """The SLO cannot be met any more, or a quota is used up."""

    error_code = HTTPStatus.TOO_MANY_REQUESTS


class GatewayTimeout(BentoMLException):
    """The timeout passed before the answer was ready."""

    error_code = HTTPStatus.GATEWAY_TIMEOUT


_BY_STATUS: Mapping[int, type[BentoMLException]] = MappingProxyType(
    {
        kind.error_code.value: kind
        for kind in (
            InvalidArgument,
            NotFound,
            TooManyRequests,
            InternalServerError,
            ServiceUnavailable,
            GatewayTimeout,
        )
    }
)

_gateway: Gateway | None = None


def bind(gateway: Gateway) -> None:
    """Tell the API which replica it speaks for; BentoML makes the API object itself, without arguments."""
    global _gateway  # noqa: PLW0603 - BentoML offers no other way to hand an object to a service instance
    _gateway = gateway


def _error(error: ProtocolError) -> BentoMLException:
    add(refusal_headers(error))
    return _BY_STATUS.get(error.status, InternalServerError)(error.message)


class NativeApi:
    """A gateway that answers every request with the most accurate variant that its deadline can afford."""

    @bentoml.api  # type: ignore[untyped-decorator]  # BentoML's decorator has no types
    async def classify(
        self,
        model: str,
        rows: list[Any],
        slo_ms: float | None = None,
        min_accuracy: float | None = None,
        variant: str | None = None,
        when_late: str | None = None,
        timeout_ms: float | None = None,
        *,
        ctx: bentoml.Context,
    ) -> dict[str, Any]:
        """Labels of the rows (texts, or lists of numbers), with confidences, the variant that answered and why.

        `path` has the variants that answered the first row one after the other, `escalation` why there was another or
        not, `first_confidence` the first answer's, which decided it (null where there was nothing to decide).

        `slo_ms` is by when the answer is wanted, `when_late` (`shed` or `serve`) what to do when that cannot be,
        `timeout_ms` when the answer is worthless, `min_accuracy` the least accuracy accepted, `variant` exactly who
        answers. Of the headers only the tenant's is read.
        """
        gateway = _gateway
        if gateway is None:
            raise ServiceUnavailable("the gateway has not started")
        arrival_s = monotonic()
        given = {"slo_ms": slo_ms, "min_accuracy": min_accuracy, "when_late": when_late, "timeout_ms": timeout_ms}
        try:
            loaded = gateway.loaded(model)
            headers = NO_HEADERS._replace(tenant=tenant_of(ctx.request.headers.raw))
            terms = read_terms(headers, _parameters(given), gateway.defaults(model))
            inputs = await _inputs(loaded, rows, gateway.settings.max_rows)
            answer, loaded = await gateway.intake.infer(model, inputs, terms, arrival_s, variant)
        except ProtocolError as error:
            gateway.metrics.protocol_error(error.status)
            raise _error(error) from error
        record = answer.record
        if record.outcome not in (Outcome.SERVED, Outcome.SERVED_LATE):
            refusal = gateway.intake.refusal(model, variant, terms, record)
            raise _error(refusal) from refusal
        return _body(loaded, answer)

    @bentoml.api  # type: ignore[untyped-decorator]  # BentoML's decorator has no types
    def families(self) -> dict[str, list[str]]:
        """The families served and the variants loaded of each, cheapest first."""
        if _gateway is None:
            return {}
        return {name: [v.name for v in family.family.variants] for name, family in _gateway.families.items()}


def _body(loaded: LoadedFamily, answer: Answer) -> dict[str, Any]:
    record = answer.record
    return {
        "labels": [loaded.manifest.labels[label] for label in answer.answers.labels],
        "confidences": answer.answers.confidences.tolist(),
        "variant": record.variant,
        "reason": record.reason.value,
        "slo_met": record.slo_met,
        "path": list(record.path),
        "escalation": record.escalation.value,
        "first_confidence": record.confidence if record.escalation is not Escalation.NONE else None,
        "total_ms": record.total_s * 1000.0,
    }


def _parameters(given: Mapping[str, float | str | None]) -> dict[str, float | str]:
    """What is given, as the open protocol has it: its timeout is a whole number of microseconds."""
    said = {name: value for name, value in given.items() if value is not None}
    timeout_ms = said.pop("timeout_ms", None)
    if timeout_ms is not None:
        if not isinstance(timeout_ms, float | int) or not 0.0 < timeout_ms < math.inf:
            raise malformed("timeout_ms", "a positive number of milliseconds", str(timeout_ms)[:80])
        said["timeout"] = max(1, round(timeout_ms * 1000.0))
    return said


async def _inputs(loaded: LoadedFamily, rows: list[Any], max_rows: int) -> dict[str, NDArray[Any]]:
    if not 1 <= len(rows) <= max_rows:
        raise malformed("rows", f"1 to {max_rows}", str(len(rows)))
    (tensor,) = loaded.manifest.inputs
    if len(rows) > CONVERT_OFF_LOOP_ROWS:
        return {tensor.name: await asyncio.to_thread(_as_tensor, rows, tensor.datatype)}
    return {tensor.name: _as_tensor(rows, tensor.datatype)}


def _as_tensor(rows: list[Any], datatype: str) -> NDArray[Any]:
    if datatype == "BYTES":
        try:
            return np.array([row.encode() for row in rows], dtype=object)
        except (AttributeError, UnicodeEncodeError):
            raise ProtocolError(400, "rows: expected texts") from None
    try:
        with np.errstate(over="ignore"):
            numbers = np.asarray(rows, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        raise ProtocolError(400, "rows: expected lists of numbers of equal length") from None
    if not np.isfinite(numbers).all():
        raise ProtocolError(400, "rows: expected finite 32-bit floats")
    return numbers
