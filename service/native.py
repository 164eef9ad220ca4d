"""BentoML's native API beside the open protocol: for `bentoml.SyncHTTPClient` and the generated docs at `/`."""

from __future__ import annotations

from time import monotonic
from typing import Any

import bentoml
import numpy as np
from bentoml.exceptions import BentoMLException, InvalidArgument, NotFound, ServiceUnavailable
from numpy.typing import NDArray

from router.contract import Outcome
from service.gateway import Gateway
from service.oip.errors import ProtocolError, dropped
from service.oip.headers import NO_HEADERS
from service.oip.terms import read_terms

_gateway: Gateway | None = None


def bind(gateway: Gateway) -> None:
    """Tell the API which replica it speaks for; BentoML makes the API object itself, without arguments."""
    global _gateway  # noqa: PLW0603 - BentoML offers no other way to hand an object to a service instance
    _gateway = gateway


def _error(error: ProtocolError) -> BentoMLException:
    kinds = {400: InvalidArgument, 404: NotFound}
    return kinds.get(error.status, ServiceUnavailable)(error.message)


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
    ) -> dict[str, Any]:
        """Labels of the rows (texts, or lists of numbers), with confidences, the variant that answered and why."""
        gateway = _gateway
        if gateway is None:
            raise ServiceUnavailable("the gateway has not started")
        arrival_s = monotonic()
        try:
            loaded = gateway.loaded(model)
            terms = read_terms(
                NO_HEADERS, _parameters(slo_ms=slo_ms, min_accuracy=min_accuracy), gateway.defaults(model)
            )
            (tensor,) = loaded.manifest.inputs
            inputs = {tensor.name: _as_tensor(rows, tensor.datatype)}
            answer = await gateway.infer(model, inputs, terms, arrival_s, variant)
        except ProtocolError as error:
            raise _error(error) from None
        record = answer.record
        if record.outcome not in (Outcome.SERVED, Outcome.SERVED_LATE):
            raise _error(dropped(record.outcome, record.reason))
        return {
            "labels": [loaded.manifest.labels[label] for label in answer.answers.labels],
            "confidences": answer.answers.confidences.tolist(),
            "variant": record.variant,
            "reason": record.reason.value,
            "slo_met": record.slo_met,
            "total_ms": record.total_s * 1000.0,
        }

    @bentoml.api  # type: ignore[untyped-decorator]  # BentoML's decorator has no types
    def families(self) -> dict[str, list[str]]:
        """The families served and the variants loaded of each, cheapest first."""
        if _gateway is None:
            return {}
        return {name: [v.name for v in family.family.variants] for name, family in _gateway.families.items()}


def _parameters(**given: float | None) -> dict[str, float]:
    return {name: value for name, value in given.items() if value is not None}


def _as_tensor(rows: list[Any], datatype: str) -> NDArray[Any]:
    if not rows:
        raise ProtocolError(400, "rows: expected at least 1, got 0")
    if datatype == "BYTES":
        if not all(isinstance(row, str) for row in rows):
            raise ProtocolError(400, "rows: expected texts")
        return np.array([row.encode() for row in rows], dtype=object)
    try:
        numbers = np.asarray(rows, dtype=np.float32)
    except (TypeError, ValueError):
        raise ProtocolError(400, "rows: expected lists of numbers of equal length") from None
    if not np.isfinite(numbers).all():
        raise ProtocolError(400, "rows: expected finite 32-bit floats")
    return numbers
