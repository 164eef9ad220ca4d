"""Every source of a request's terms, which of them wins, and how malformed ones are named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.request import NEVER
from router.words import WhenLate
from service.oip.errors import ProtocolError
from service.oip.headers import NO_HEADERS, read_headers
from service.oip.request import NO_PARAMETERS
from service.oip.terms import TermDefaults, Terms, read_terms

DEFAULTS = TermDefaults(slo_s=0.1, timeout_s=10.0)
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def terms(*headers: tuple[str, str], defaults: TermDefaults = DEFAULTS, **parameters: Any) -> Terms:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return read_terms(read_headers(raw), parameters, defaults)


def test_silence_means_the_defaults() -> None:
    """A request that says nothing gets the family's terms; headers that mean nothing here are ignored."""
    expected = Terms(0.1, 10.0, 0.0, 0, WhenLate.SHED, "default-flow", "default")
    assert read_terms(NO_HEADERS, NO_PARAMETERS, DEFAULTS) == expected
    assert terms(("host", "a"), ("accept", "*/*"), ("x-slo", "soon")) == expected


@pytest.mark.parametrize(
    ("name", "value", "timeout_s"),
    [
        ("grpc-timeout", "100m", 0.1),
        ("grpc-timeout", "2S", 2.0),
        ("grpc-timeout", "500u", 0.0005),
        ("grpc-timeout", "90000000n", 0.09),
        ("grpc-timeout", "1M", 10.0),
        ("grpc-timeout", "1H", 10.0),
        ("x-envoy-expected-rq-timeout-ms", "250", 0.25),
        ("x-request-timeout-seconds", "1.5", 1.5),
        ("x-request-timeout-seconds", "60", 10.0),
    ],
)
def test_each_timeout_header_counts_in_its_unit(name: str, value: str, timeout_s: float) -> None:
    """A timeout shortens the default one and never lengthens it."""
    assert terms((name, value)).timeout_s == pytest.approx(timeout_s)


def test_the_tightest_source_wins() -> None:
    """Headers, repeated headers and parameters are all read; order does not matter."""
    told = terms(
        ("x-slo-latency-ms", "50"),
        ("x-slo-latency-ms", "40"),
        ("x-slo-latency-ms", "60"),
        ("grpc-timeout", "3S"),
        ("x-envoy-expected-rq-timeout-ms", "2000"),
        ("x-slo-min-accuracy", "0.8"),
        ("x-slo-when-late", "serve"),
        slo_ms=45,
        timeout=1_500_000,
        min_accuracy=0.85,
        when_late="shed",
        priority=3,
    )
    by = "parameters.min_accuracy"
    assert told == Terms(0.04, 1.5, 0.85, 3, WhenLate.SHED, "default-flow", "default", floor_by=by)
    assert terms(("x-slo-latency-ms", "50"), slo_ms=45).slo_s == 0.045
    assert terms(("x-slo-when-late", "Serve")).when_late is WhenLate.SERVE


@pytest.mark.parametrize(
    ("header", "parameter", "by"),
    [
        (None, None, "min_accuracy in the settings"),
        ("0.6", None, "min_accuracy in the settings"),
        (None, 0.7, "min_accuracy in the settings"),
        ("0.8", None, "header x-slo-min-accuracy"),
        ("0.8", 0.8, "header x-slo-min-accuracy"),
        ("0.9", 0.8, "header x-slo-min-accuracy"),
        (None, 0.8, "parameters.min_accuracy"),
        ("0.8", 0.9, "parameters.min_accuracy"),
    ],
)
def test_the_floor_is_known_by_who_set_it(header: str | None, parameter: float | None, by: str) -> None:
    """The highest one counts, and is what an error names."""
    headers = [] if header is None else [("x-slo-min-accuracy", header)]
    parameters = {} if parameter is None else {"min_accuracy": parameter}
    assert by == terms(*headers, defaults=DEFAULTS._replace(min_accuracy=0.7), **parameters).floor_by


def test_a_stated_slo_replaces_the_default_even_where_it_is_longer() -> None:
    """The family's SLO is for those who name none."""
    assert terms(("x-slo-latency-ms", "5000")).slo_s == 5.0


def test_the_class_batch_has_no_slo_of_its_own() -> None:
    """Class `batch` runs on spare capacity; an SLO that the request states still holds."""
    batch = ("x-gateway-inference-objective", "batch")
    assert (terms(batch).slo_s, terms(batch).service_class) == (None, "batch")
    assert terms(batch, ("x-slo-latency-ms", "50")).slo_s == 0.05
    assert terms(defaults=TermDefaults(None)).slo_s is None
    assert terms(defaults=TermDefaults(None)).timeout_s == NEVER


def test_tenant_and_class_are_taken_from_headers() -> None:
    """The names of the Gateway API Inference Extension."""
    told = terms(("x-gateway-inference-fairness-id", "team a"), ("x-gateway-inference-objective", "interactive"))
    assert (told.tenant, told.service_class) == ("team a", "interactive")


@pytest.mark.parametrize(
    "name", ["x-slo-latency-ms", "x-envoy-expected-rq-timeout-ms", "x-request-timeout-seconds", "x-slo-min-accuracy"]
)
@pytest.mark.parametrize("value", ["", "0", "-1", "nan", "inf", "1e999", "soon", "5ms", "1_0", "0x10", "-0.0", "\xb2"])
def test_a_malformed_number_is_named(name: str, value: str) -> None:
    """Zero, negative, empty and non-finite values are malformed, not ignored."""
    with pytest.raises(ProtocolError) as caught:
        terms((name, value))
    assert caught.value.status == 400
    assert caught.value.message.startswith(f"header {name}: expected a ")
    assert caught.value.message.endswith(f", got {value!r}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-slo-min-accuracy", "1.01"),
        ("x-slo-min-accuracy", "85"),
        ("grpc-timeout", "100"),
        ("grpc-timeout", "0m"),
        ("grpc-timeout", "123456789m"),
        ("grpc-timeout", "1.5S"),
        ("grpc-timeout", "5s"),
        ("grpc-timeout", "-5S"),
        ("grpc-timeout", ""),
        ("x-slo-when-late", "drop"),
        ("x-slo-when-late", ""),
        ("x-request-id", ""),
        ("x-request-id", "a" * 129),
        ("x-request-id", "\xe4"),
        ("x-gateway-inference-fairness-id", ""),
        ("x-gateway-inference-objective", "a\tb"),
        ("inference-header-content-length", "-5"),
        ("inference-header-content-length", "five"),
        ("inference-header-content-length", "1.0"),
        ("inference-header-content-length", "9" * 19),
        ("inference-header-content-length", ""),
    ],
)
def test_another_malformed_header_is_named(name: str, value: str) -> None:
    """The message begins with the header's name and repeats little of its value."""
    with pytest.raises(ProtocolError, match=f"^header {name}: expected ") as caught:
        read_headers([(name.encode(), value.encode("latin-1"))])
    assert caught.value.status == 400
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slo_ms", 0),
        ("slo_ms", -5),
        ("slo_ms", True),
        ("slo_ms", 5e-324),
        ("slo_ms", "50"),
        ("timeout", 0),
        ("timeout", 1.5),
        ("timeout", 2**64 - 1),
        ("min_accuracy", 0),
        ("min_accuracy", 1.5),
        ("min_accuracy", False),
        ("when_late", "drop"),
        ("when_late", 1),
        ("priority", -1),
        ("priority", 1.0),
        ("priority", True),
    ],
)
def test_a_malformed_parameter_is_named(name: str, value: Any) -> None:
    """Parameters are held to the same rules as headers."""
    with pytest.raises(ProtocolError, match=rf"^parameters\.{name}: expected ") as caught:
        terms(**{name: value})
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"nonsense",
        TRACE.replace(b"00-", b"ff-", 1),
        TRACE.upper(),
        TRACE + b"-more",
        b"00-" + b"0" * 32 + TRACE[35:],
        TRACE[:36] + b"0" * 16 + b"-01",
    ],
)
def test_an_unsound_traceparent_is_ignored(value: bytes) -> None:
    """W3C Trace Context wants a new trace then, not a refusal; so does a second header."""
    assert read_headers([(b"traceparent", value)]).traceparent is None
    assert read_headers([(b"traceparent", TRACE), (b"traceparent", TRACE)]).traceparent is None


@pytest.mark.parametrize("rest", [b"", b"-what-ever", b"-\x01\xff", b"-" + 8000 * b"-"])
@pytest.mark.parametrize(("flags", "kept"), [(b"01", "01"), (b"ff", "01"), (b"fe", "00")])
def test_of_a_later_version_of_traceparent_no_more_is_kept_than_this_one_knows(
    rest: bytes, flags: bytes, kept: str
) -> None:
    """Later versions may append fields, which go nowhere; flags are unset but for the first."""
    value = b"01" + TRACE[2:-2] + flags + rest
    assert read_headers([(b"traceparent", value)]).traceparent == f"00{TRACE[2:-2].decode()}{kept}"


def test_repeated_words_must_agree() -> None:
    """Two tenants for one request are a fault, one tenant named twice is not."""
    name = b"x-gateway-inference-fairness-id"
    assert read_headers([(name, b"a"), (name, b"a")]).tenant == "a"
    with pytest.raises(ProtocolError, match="expected one value, got 'a' and 'b'"):
        read_headers([(name, b"a"), (name, b"b")])
    with pytest.raises(ProtocolError, match="expected one value, got 0 and 5"):
        read_headers([(b"inference-header-content-length", b"0"), (b"inference-header-content-length", b"5")])


def test_headers_about_the_body_and_the_answer() -> None:
    """What the data plane needs besides the terms comes from the same pass."""
    headers = read_headers(
        [
            (b"content-length", b"400"),
            (b"content-encoding", b"GZIP"),
            (b"accept-encoding", b"gzip;q=0.5"),
            (b"accept-encoding", b"Deflate"),
            (b"inference-header-content-length", b"99"),
            (b"endpoint-load-metrics-format", b"JSON"),
            (b"x-request-id", b"r-1"),
        ]
    )
    assert headers.content_length == 400
    assert headers.content_encoding == "gzip"
    assert headers.accept_encoding == "gzip;q=0.5, deflate"
    assert headers.inference_header_length == 99
    assert headers.load_metrics == "json"
    assert headers.request_id == "r-1"


NAMES = st.sampled_from(
    [
        "x-slo-latency-ms",
        "grpc-timeout",
        "x-slo-min-accuracy",
        "x-slo-when-late",
        "x-request-id",
        "traceparent",
        "accept-encoding",
        "content-length",
        "inference-header-content-length",
    ]
)


@given(st.lists(st.tuples(NAMES.map(str.encode), st.binary(max_size=40)), max_size=4))
def test_no_header_breaks_the_reader(raw: list[tuple[bytes, bytes]]) -> None:
    """Whatever bytes come, they are read or refused with 400, and what is read is in range."""
    status = 200
    told = Terms(1.0, 1.0, 0.0, 0, WhenLate.SHED, "", "")
    try:
        told = read_terms(read_headers(raw), NO_PARAMETERS, DEFAULTS)
    except ProtocolError as error:
        status = error.status
    assert status in (200, 400)
    assert told.slo_s is not None
    assert told.slo_s > 0
    assert 0 < told.timeout_s <= 10.0
    assert 0 <= told.min_accuracy <= 1
