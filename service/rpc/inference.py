"""`ModelInfer`: read, decode, answer, encode, and say what was decided and why."""

from __future__ import annotations

import asyncio
import logging

import grpc

from router.contract import Origin
from service.access import Role
from service.answering import LOOSENING, Answering, outputs_of
from service.decision import decision
from service.exchange import ClientGone, RawHeaders
from service.gateway import Gateway
from service.inference import DECODE_OFF_LOOP_BYTES
from service.oip.errors import DroppedError, ProtocolError
from service.oip.headers import RequestHeaders
from service.origins import echoes
from service.rpc.calls import Context, admitted, as_metadata, read_call, refuse
from service.rpc.decode import check_weight, decode_message
from service.rpc.encode import encode_message
from service.rpc.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from service.rpc.reading import MessageReader, parse

logger = logging.getLogger("pareto.rpc")

PATH = "/inference.GRPCInferenceService/ModelInfer"


class RpcInference:
    """Answers inference requests of one replica that come over gRPC."""

    def __init__(self, gateway: Gateway, answering: Answering, reader: MessageReader) -> None:
        settings = gateway.settings
        self._gateway = gateway
        self._answering = answering
        self._reader = reader
        self._limit_typed_bytes = settings.max_json_bytes

    async def infer(self, _: object, context: Context) -> ModelInferResponse:
        """Answer one request, with a refusal where it cannot be answered."""
        answering = self._answering
        arrival_s = answering.arrivals.arrival_s()
        echoed: RawHeaders = []
        held_bytes = 0
        try:
            _, metadata = admitted(self._gateway.access, context, Role.INFER)
            headers = read_call(context, metadata, arrival_s)
            origin = answering.origins.of(headers, PATH)
            echoed = echoes(origin, headers)
            if not self._gateway.is_ready:
                raise self._gateway.unavailable()
            message = await self._reader.read(context)
            held_bytes = answering.inflight.hold(len(message))
            response, said = await self._answer(message, headers, arrival_s, origin)
            context.set_trailing_metadata(as_metadata(*echoed, *said))
            return response
        except DroppedError as refused:
            await refuse(context, refused, echoed)
        except ProtocolError as error:
            self._gateway.metrics.protocol_error(error.status)
            await refuse(context, error, echoed)
        except ClientGone:
            await refuse(context, ProtocolError(499, "the call was cancelled"), echoed)
        except grpc.aio.BaseError:
            # gRPC's own: the call has ended already.
            raise
        except Exception:
            logger.exception("request %s failed", PATH)
            self._gateway.metrics.protocol_error(500)
            await refuse(context, ProtocolError(500, "internal error"), echoed)
        finally:
            answering.inflight.release(held_bytes)

    async def _answer(
        self, message: bytes, headers: RequestHeaders, arrival_s: float, origin: Origin
    ) -> tuple[ModelInferResponse, RawHeaders]:
        answering = self._answering
        off_loop = len(message) > DECODE_OFF_LOOP_BYTES
        asked = await asyncio.to_thread(self._parse, message) if off_loop else parse(ModelInferRequest, message)
        family, variant = asked.model_name, asked.model_version or None
        loaded = self._gateway.loaded(family)
        loosened = variant is not None or any(name in asked.parameters for name in LOOSENING)
        if refusal := answering.refusal(loaded, headers, arrival_s, origin, loosened=loosened):
            raise refusal
        if off_loop:
            request = await asyncio.to_thread(decode_message, asked, loaded.signature, answering.limits)
        else:
            request = decode_message(asked, loaded.signature, answering.limits)
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

    def _parse(self, message: bytes) -> ModelInferRequest:
        check_weight(message, self._limit_typed_bytes)
        return parse(ModelInferRequest, message)
