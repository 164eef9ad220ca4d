"""One call: what its metadata say, read by the rules for headers, and how it is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from time import monotonic
from types import MappingProxyType
from typing import Any, Never, TypeAlias
from urllib.parse import unquote

import grpc

from service.access import Access, Key, Role, asked_as, shown_secret
from service.exchange import RawHeaders, refusal_headers
from service.oip.errors import GRPC_STATUS, GrpcStatus, ProtocolError
from service.oip.headers import RequestHeaders, read_headers

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

LEAST_TIMEOUT_S = 1e-6
"""Of a deadline that has passed already."""

PUSHBACK = b"grpc-retry-pushback-ms"
"""When to come back, for clients that retry by themselves (gRFC A6)."""

MOST_DETAILS_BYTES = 1024
"""Clients refuse answers whose metadata are longer than some kilobytes, and then see neither code nor reason."""

_CODES: Mapping[int, grpc.StatusCode] = MappingProxyType({code.value[0]: code for code in grpc.StatusCode})


def raw_metadata(context: Context) -> RawHeaders:
    """The metadata of a call, as HTTP would have them."""
    return [
        (key.encode(), value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value)
        for key, value in context.invocation_metadata() or ()
    ]


def admitted(access: Access, context: Context, need: Role) -> tuple[Key, Sequence[tuple[bytes, bytes]]]:
    """The key of a caller who may make the call, and its metadata, as the tenant of the key.

    Raises `ProtocolError` 401 and 403.
    """
    metadata = raw_metadata(context)
    key = access.admit(shown_secret(metadata), need)
    return key, asked_as(key, metadata)


def peer_address(context: Context) -> str | None:
    """The caller's IP address; none for a Unix socket.

    It is known as `ipv4:127.0.0.1:1234` or `ipv6:%5B::1%5D:1234`.
    """
    family, _, address = context.peer().partition(":")
    if family not in ("ipv4", "ipv6"):
        return None
    return unquote(address).rpartition(":")[0].strip("[]")


def read_call(context: Context, metadata: Sequence[tuple[bytes, bytes]], arrival_s: float) -> RequestHeaders:
    """What a call that came at `arrival_s` asks for. gRPC itself has read `grpc-timeout`, and has it no more.

    Raises `ProtocolError` 400.
    """
    headers = read_headers(metadata)
    remaining_s: float | None = context.time_remaining()
    if remaining_s is None:
        return headers
    timeout_s = max(LEAST_TIMEOUT_S, monotonic() + remaining_s - arrival_s)
    return headers._replace(timeout_s=timeout_s) if timeout_s < headers.timeout_s else headers


def refusal_metadata(error: ProtocolError) -> RawHeaders:
    """Why a call was refused, and when to come back: in seconds as over HTTP, in milliseconds for gRPC."""
    said = refusal_headers(error)
    if error.retry_after_s is not None:
        said.append((PUSHBACK, b"%d" % ceil(1e3 * error.retry_after_s)))
    return said


def code_of(status: int) -> grpc.StatusCode:
    """The code for a failure that has this HTTP status."""
    return _CODES[GRPC_STATUS.get(status, GrpcStatus.UNKNOWN)]


def as_metadata(*headers: tuple[bytes, bytes]) -> tuple[tuple[str, bytes], ...]:
    """Headers as gRPC takes them."""
    return tuple((name.decode(), value) for name, value in headers)


async def refuse(context: Context, error: ProtocolError, echoed: RawHeaders) -> Never:
    """End the call with an error; raises what ends it."""
    details = error.message.encode("utf-8", "replace")
    if len(details) > MOST_DETAILS_BYTES:
        details = details[:MOST_DETAILS_BYTES] + b"..."
    said = as_metadata(*echoed, *refusal_metadata(error))
    await context.abort(code_of(error.status), details.decode("utf-8", "ignore"), said)
