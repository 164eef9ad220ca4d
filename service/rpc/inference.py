"""`ModelInfer`: read, decode, answer, encode, and say what was decided and why."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic

from router.request import NEVER, Origin
from service.access import Role
from service.answering import LOOSENING, Answering, outputs_of
from service.decision import decision
from service.exchange import SMALL_BYTES, RawHeaders
from service.gateway import Gateway
from service.oip.errors import ProtocolError
from service.oip.headers import RequestHeaders
from service.oip.request import InferRequest
from service.origins import echoes
from service.rpc.bursts import Bursts
from service.rpc.calls import Context, admitted, as_metadata, read_call
from service.rpc.decode import check_weight, decode_message
from service.rpc.encode import encode_message
from service.rpc.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from service.rpc.reading import MessageReader, parse
from service.rpc.threads import in_thread

PATH = "/inference.GRPCInferenceService/ModelInfer"


class RpcInference:
    """Answers inference requests of one replica that come over gRPC."""

    def __init__(self, gateway: Gateway, answering: Answering, reader: MessageReader) -> None:
        settings = gateway.settings
        self._gateway = gateway
        self._answering = answering
        self._reader = reader
        self._bursts = Bursts()
        self._limit_typed_bytes = settings.max_json_bytes
        self._threads = ThreadPoolExecutor(thread_name_prefix="grpc-decode")

    async def infer(self, context: Context, echoed: RawHeaders) -> ModelInferResponse:
        """Answer one request; its ids are `echoed`. Raises `ProtocolError`, and `ClientGone` where it was cancelled."""
        answering = self._answering
        arrival_s = answering.arrivals.arrival_s()
        _, metadata = admitted(self._gateway.access, context, Role.INFER)
        try:
            headers = read_call(context, metadata, arrival_s)
        except ProtocolError:
            echoed += answering.origins.ids_of(metadata, PATH)
            raise
        origin = answering.origins.of(headers, PATH)
        echoed += echoes(origin, headers)
        if not self._gateway.is_ready:
            raise self._gateway.unavailable()
        # Behind all that refuses a call unread: nobody is to wait for callers who may not ask.
        self._bursts.begin()
        message = await self._reader.read(context)
        held_bytes = answering.inflight.hold(len(message))
        try:
            response, said = await self._answer(message, headers, arrival_s, origin)
        finally:
            answering.inflight.release(held_bytes)
        context.set_trailing_metadata(as_metadata(*echoed, *said))
        return response

    async def _answer(
        self, message: bytes, headers: RequestHeaders, arrival_s: float, origin: Origin
    ) -> tuple[ModelInferResponse, RawHeaders]:
        answering = self._answering
        off_loop = len(message) > SMALL_BYTES
        parse_it = partial(self._parse, message)
        asked = await in_thread(self._threads, parse_it) if off_loop else parse_it()
        family, variant = asked.model_name, asked.model_version or None
        loaded = self._gateway.loaded(family)

        def is_loosened() -> bool:
            return variant is not None or any(name in asked.parameters for name in LOOSENING)

        if refusal := answering.refusal(loaded, headers, arrival_s, origin, loosened=is_loosened):
            raise refusal
        decode = partial(decode_message, asked, loaded.signature, answering.limits)
        request = await in_thread(self._threads, decode) if off_loop else decode()
        await self._bursts.gathered(self._least_left_s(family, headers, request, arrival_s))
        answer, loaded = await answering.answer(family, variant, headers, request, arrival_s, origin)
        record = answer.record
        response = encode_message(
            family,
            record.variant,
            request.id,
            loaded.signature,
            outputs_of(loaded, answer, request),
            request.outputs,
            request.binary_default,
            decision(record),
        )
        return response, answering.headers_of(record, loaded, headers)

    def _least_left_s(self, family: str, headers: RequestHeaders, request: InferRequest, arrival_s: float) -> float:
        """No more than the time that the request has until its SLO or timeout, whatever its parameters say.

        Below 0.0 where that has passed.
        """
        if "slo_ms" in request.parameters or "timeout" in request.parameters:
            return 0.0
        defaults = self._gateway.defaults(family)
        slo_s = headers.slo_s if headers.slo_s != NEVER else defaults.slo_s or NEVER
        return arrival_s + min(slo_s, headers.timeout_s, defaults.timeout_s) - monotonic()

    def _parse(self, message: bytes) -> ModelInferRequest:
        check_weight(message, self._limit_typed_bytes)
        return parse(ModelInferRequest, message)
