"""Content codings of bodies, both ways: `gzip` and `deflate` (zlib's format, as RFC 9110 has it)."""

from __future__ import annotations

import zlib

from service.oip.errors import ProtocolError, malformed, shown

_GZIP_BITS = 16 + zlib.MAX_WBITS
_WINDOW_BITS = {"gzip": _GZIP_BITS, "x-gzip": _GZIP_BITS, "deflate": zlib.MAX_WBITS}
_UNCOMPRESSED = ("", "identity")
_FASTEST = 1

WORTH_COMPRESSING_BYTES = 1024
"""Many clients accept codings by default, and a short answer costs more time to compress than it saves to send."""


def decompress(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """The body without its `Content-Encoding`, which is in lower case and may be empty.

    Never makes more than `limit_bytes` and one. Raises `ProtocolError` 413 over that, 400 for a corrupt or truncated
    body, 415 for another coding.
    """
    encoding = encoding.strip()
    if encoding in _UNCOMPRESSED:
        return body
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise ProtocolError(415, f"header content-encoding: expected gzip, deflate or identity, got {shown(encoding)}")
    stream = zlib.decompressobj(bits)
    try:
        content = stream.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise malformed("body", f"{encoding} data", f"data that cannot be decompressed ({error})") from None
    if len(content) > limit_bytes:
        raise ProtocolError(413, f"body: expected at most {limit_bytes} bytes after decompression, got more")
    if not stream.eof:
        raise malformed("body", f"{encoding} data", "truncated data")
    # One gzip member is enough: reading on would make a body of a million empty ones quadratic work.
    if stream.unused_data:
        raise malformed("body", f"{encoding} data", f"{len(stream.unused_data)} bytes after its end")
    return content


def accepted_encoding(accept_encoding: str) -> str | None:
    """The coding to answer with for an `Accept-Encoding` in lower case: `gzip`, `deflate` or `None`.

    Only a coding that the header names with a weight above 0 and not below that of `identity` is chosen; gzip wins
    ties. `*` chooses nothing: the caller did not ask for compression. A malformed weight counts as 0.
    """
    if not accept_encoding:
        return None
    weights: dict[str, float] = {}
    for item in accept_encoding.split(","):
        coding, _, parameters = item.partition(";")
        weights[coding.strip()] = _weight(parameters)
    best = None
    best_weight = weights.get("identity", 0.0)
    for coding in ("gzip", "deflate"):
        weight = weights.get(coding, 0.0)
        if weight > 0.0 and (weight > best_weight or (best is None and weight == best_weight)):
            best, best_weight = coding, weight
    return best


def compress(body: bytes, accept_encoding: str, least_bytes: int = WORTH_COMPRESSING_BYTES) -> tuple[bytes, str | None]:
    """The body as an `Accept-Encoding` in lower case wants it, and its coding (`None`: as it was).

    Bodies under `least_bytes` stay as they are.
    """
    encoding = accepted_encoding(accept_encoding) if len(body) >= least_bytes else None
    if encoding is None:
        return body, None
    stream = zlib.compressobj(_FASTEST, zlib.DEFLATED, _WINDOW_BITS[encoding])
    return stream.compress(body) + stream.flush(), encoding


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if not name:
        return 1.0
    try:
        weight = float(value)
    except ValueError:
        return 0.0
    return weight if name.strip() == "q" and 0.0 <= weight <= 1.0 else 0.0
