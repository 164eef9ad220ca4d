"""The request headers that mean something here, read in one pass before the body is.

Malformed ones are a `ProtocolError` 400 that names the header, except `traceparent`, which W3C Trace Context wants
ignored. Of a repeated header the tightest value counts; words that are repeated must agree.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from router.request import NEVER
from router.words import WhenLate
from service.oip.errors import ProtocolError, malformed, shown

ID_HEADER = b"x-request-id"
TENANT_HEADER = b"x-gateway-inference-fairness-id"
"""Whose a request is."""

FLOOR_HEADER = b"x-slo-min-accuracy"
"""The least accuracy that a request accepts."""

BATCH_CLASS = "batch"
"""The service class of work that uses spare capacity only."""

WHEN_LATE: Mapping[str, WhenLate] = MappingProxyType({word.value: word for word in WhenLate})

_MAX_WORD = 128
LEAST = 1e-6
"""Of a duration in its own unit and of a fraction: smaller ones are slips of the pen, and vanish in floats."""
_GRPC_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_GRPC_UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?")
SAMPLED = 0x01
"""The bit of a `traceparent`'s flags that says that the caller keeps the trace."""


class RequestHeaders(NamedTuple):
    """What the headers say; a default means that none said it.

    `slo_s` and `timeout_s` are seconds from receipt, `min_accuracy` a fraction in [0, 1]. `inference_header_length`
    is `Inference-Header-Content-Length`, not checked against the body. `load_metrics` is `json`, `text` or empty, for
    ORCA. `content_encoding` and `accept_encoding` are as sent, in lower case.
    """

    slo_s: float = NEVER
    timeout_s: float = NEVER
    min_accuracy: float = 0.0
    when_late: WhenLate | None = None
    tenant: str = ""
    service_class: str = ""
    request_id: str = ""
    traceparent: str | None = None
    content_length: int | None = None
    content_encoding: str | None = None
    accept_encoding: str | None = None
    inference_header_length: int | None = None
    load_metrics: str = ""
    session: str = ""


NO_HEADERS = RequestHeaders()


def read_headers(raw: Iterable[tuple[bytes, bytes]]) -> RequestHeaders:
    """Read the headers of an ASGI scope, whose names are in lower case. Raises `ProtocolError` 400."""
    values: list[Any] | None = None
    for name, value in raw:
        rule = _RULES.get(name)
        if rule is not None:
            if values is None:
                values = list(NO_HEADERS)
            field, parse, join = rule
            values[field] = join(name, values[field], parse(name, value))
    if values is None:
        return NO_HEADERS
    values[_TRACE] = values[_TRACE] or None
    return RequestHeaders._make(values)


def tenant_of(raw: Iterable[tuple[bytes, bytes]]) -> str:
    """The tenant alone, empty where none is named, for what does not go by the other headers. Raises as above."""
    return read_headers(header for header in raw if header[0] == TENANT_HEADER).tenant


def refused(name: bytes, expected: str, value: bytes) -> ProtocolError:
    """A 400 for a header."""
    return malformed(f"header {name.decode('latin-1')}", expected, shown(value.decode("latin-1")))


def tighter(one: WhenLate | None, other: WhenLate) -> WhenLate:
    """`shed` where either says so."""
    return other if one is None or other is WhenLate.SHED else one


def _milliseconds(name: bytes, value: bytes) -> float:
    return _positive(name, value, "a positive number of milliseconds", 1e3)


def _seconds(name: bytes, value: bytes) -> float:
    return _positive(name, value, "a positive number of seconds")


def _positive(name: bytes, value: bytes, expected: str, divisor: float = 1.0) -> float:
    try:
        number = float(value) / divisor
    except ValueError:
        raise refused(name, expected, value) from None
    # float() reads digits grouped by underscores, which no other reader of these headers does.
    if not LEAST <= number < math.inf or b"_" in value:
        raise refused(name, expected, value)
    return number


def _fraction(name: bytes, value: bytes) -> float:
    expected = "a fraction above 0 and at most 1"
    number = _positive(name, value, expected)
    if number > 1.0:
        raise refused(name, expected, value)
    return number


def _grpc_timeout(name: bytes, value: bytes) -> float:
    match = _GRPC_TIMEOUT.fullmatch(value)
    seconds = int(match[1]) * _GRPC_UNITS_S[match[2]] if match else 0.0
    if not seconds:
        raise refused(name, "1 to 8 digits, not zero, and a unit of H, M, S, m, u or n, like '100m'", value)
    return seconds


def _bytes(name: bytes, value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise refused(name, "a number of bytes", value)
    return int(value)


def _when_late(name: bytes, value: bytes) -> WhenLate:
    word = WHEN_LATE.get(value.decode("latin-1").lower())
    if word is None:
        raise refused(name, "'shed' or 'serve'", value)
    return word


def _word(name: bytes, value: bytes) -> str:
    text = value.decode("latin-1")
    if not 0 < len(text) <= _MAX_WORD or not text.isascii() or not text.isprintable():
        raise refused(name, f"1 to {_MAX_WORD} printable ASCII characters", value)
    return text


def _text(name: bytes, value: bytes) -> str:
    return value.decode("latin-1").lower()


def _traceparent(name: bytes, value: bytes) -> str:
    """The header in 55 characters where it is sound, else empty, which counts as seen.

    Of a later version that is what this one knows of it, as W3C wants it: no more than ids and the bit for `sampled`.
    """
    match = _TRACEPARENT.fullmatch(value)
    if match is None or (match[1] == b"00" and match[3]):
        return ""
    if match[1] == b"00":
        return value.decode("ascii")
    return f"00-{value[3:52].decode('ascii')}-{int(match[2], 16) & SAMPLED:02x}"


def _load_metrics(name: bytes, value: bytes) -> str:
    text = value.decode("latin-1").lower()
    return text if text in ("json", "text") else ""


def _least(name: bytes, one: float, other: float) -> float:
    return min(one, other)


def _greatest(name: bytes, one: float, other: float) -> float:
    return max(one, other)


def _tighter(name: bytes, one: WhenLate | None, other: WhenLate) -> WhenLate:
    return tighter(one, other)


def _agreeing(name: bytes, one: Any, other: Any) -> Any:
    if one not in (None, "", other):
        raise malformed(f"header {name.decode('latin-1')}", "one value", f"{shown(one)} and {shown(other)}")
    return other


def _only(name: bytes, one: str | None, other: str) -> str:
    return other if one is None else ""


def _listed(name: bytes, one: str | None, other: str) -> str:
    return other if one is None else f"{one}, {other}"


def _last(name: bytes, one: str, other: str) -> str:
    return other


_Rule = tuple[int, Callable[[bytes, bytes], Any], Callable[[bytes, Any, Any], Any]]
_FIELDS = {name: index for index, name in enumerate(RequestHeaders._fields)}
_TRACE = _FIELDS["traceparent"]
_RULES: Mapping[bytes, _Rule] = {
    name: (_FIELDS[field], parse, join)
    for name, field, parse, join in (
        (b"x-slo-latency-ms", "slo_s", _milliseconds, _least),
        (b"grpc-timeout", "timeout_s", _grpc_timeout, _least),
        (b"x-envoy-expected-rq-timeout-ms", "timeout_s", _milliseconds, _least),
        (b"x-request-timeout-seconds", "timeout_s", _seconds, _least),
        (FLOOR_HEADER, "min_accuracy", _fraction, _greatest),
        (b"x-slo-when-late", "when_late", _when_late, _tighter),
        (TENANT_HEADER, "tenant", _word, _agreeing),
        (b"x-gateway-inference-objective", "service_class", _word, _agreeing),
        (ID_HEADER, "request_id", _word, _agreeing),
        (b"x-session-id", "session", _word, _agreeing),
        (b"traceparent", "traceparent", _traceparent, _only),
        (b"content-length", "content_length", _bytes, _agreeing),
        (b"content-encoding", "content_encoding", _text, _listed),
        (b"accept-encoding", "accept_encoding", _text, _listed),
        (b"inference-header-content-length", "inference_header_length", _bytes, _agreeing),
        (b"endpoint-load-metrics-format", "load_metrics", _load_metrics, _last),
    )
}

REQUEST_HEADERS = tuple(_RULES)
"""The names of the headers that are read."""
