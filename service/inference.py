"""`POST /v2/models/{family}[/versions/{variant}]/infer`: decode, answer, encode, and say what was decided and why."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from service.answering import LOOSENING, Answering, outputs_of
from service.decision import decision
from service.exchange import (
    JSON,
    SMALL_BYTES,
    ClientGone,
    RawHeaders,
    Receive,
    Scope,
    Send,
    read_body,
    send_error,
    send_whole,
)
from service.gateway import Gateway
from service.loaded_family import LoadedFamily
from service.oip.compression import compress, decompress
from service.oip.decode import decode_infer
from service.oip.encode import encode_infer
from service.oip.errors import DroppedError, ProtocolError, malformed
from service.oip.headers import RequestHeaders, read_headers
from service.oip.request import InferRequest
from service.origins import echoes

logger = logging.getLogger("pareto.inference")

OCTET_STREAM = b"application/octet-stream"
MOST_CONTAINERS = 20_000
"""Objects and lists cost the parser of JSON most. It holds the interpreter lock, so that decoding large bodies in a
thread alone would not do."""

COMPRESS_FROM_BYTES = 512
"""Shorter answers are not worth compressing, though the caller would take it."""

LOOSENING_WORDS = (*(name.encode() for name in LOOSENING), b"\\")
"""What stands in a body whose parameters may ask for more than headers and defaults do; names may be escaped."""


class InferenceHandler:
    """Answers inference requests of one replica that come over HTTP."""

    def __init__(self, gateway: Gateway, answering: Answering) -> None:
        settings = gateway.settings
        self._gateway = gateway
        self._answering = answering
        self._limit_bytes = settings.max_body_bytes
        self._limit_json_bytes = settings.max_json_bytes

    async def handle(self, family: str, variant: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, with a refusal where it cannot be answered."""
        answering = self._answering
        arrival_s = answering.arrivals.arrival_s()
        echoed: RawHeaders = []
        held_bytes = 0
        try:
            headers = read_headers(scope["headers"])
            origin = answering.origins.of(headers, scope["path"])
            echoed = echoes(origin, headers)
            loaded = self._gateway.loaded(family)
            held_bytes = answering.inflight.hold(self._wanted_bytes(headers))
            body = await read_body(receive, self._limit_bytes, headers.content_length)
            loosened = partial(_is_loosened, variant, headers, body)
            if refusal := answering.refusal(loaded, headers, arrival_s, origin, loosened=loosened):
                await send_error(send, refusal, echoed)
                return
            if len(body) > SMALL_BYTES or headers.content_encoding:
                request = await asyncio.to_thread(self._decode, loaded, body, headers)
            else:
                request = self._decode(loaded, body, headers)
            answer, loaded = await answering.answer(family, variant, headers, request, arrival_s, origin, receive)
            record = answer.record
            content, json_length = encode_infer(
                family,
                record.variant,
                request.id,
                loaded.signature,
                outputs_of(loaded, answer, request),
                request.outputs,
                request.binary_default,
                decision(record),
            )
            echoed += answering.headers_of(record, loaded, headers)
            content_type = JSON
            if json_length is not None:
                content_type = OCTET_STREAM
                echoed.append((b"inference-header-content-length", b"%d" % json_length))
            if headers.accept_encoding and len(content) >= COMPRESS_FROM_BYTES:
                content, coding = compress(content, headers.accept_encoding)
                if coding is not None:
                    echoed.append((b"content-encoding", coding.encode()))
            await send_whole(send, 200, content, content_type, echoed)
        except DroppedError as refused:
            await send_error(send, refused, echoed)
        except ProtocolError as error:
            self._gateway.metrics.protocol_error(error.status)
            await send_error(send, error, echoed or answering.origins.ids_of(scope["headers"], scope["path"]))
        except ClientGone:
            return
        except Exception:
            logger.exception("request %s failed", scope["path"])
            self._gateway.metrics.protocol_error(500)
            await send_error(send, ProtocolError(500, "internal error"), echoed)
        finally:
            answering.inflight.release(held_bytes)

    def _wanted_bytes(self, headers: RequestHeaders) -> int:
        """The memory of a body before it is read; one without a declared length may be as large as any."""
        declared = headers.content_length
        return self._limit_bytes if declared is None else min(declared, self._limit_bytes)

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
        return decode_infer(body, headers.inference_header_length, loaded.signature, self._answering.limits)


def _is_loosened(variant: str | None, headers: RequestHeaders, body: bytes) -> bool:
    """Whether a request may ask for more than its headers do; a body that cannot be searched may have any."""
    return variant is not None or bool(headers.content_encoding) or any(word in body for word in LOOSENING_WORDS)
