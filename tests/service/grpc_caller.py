"""A plain gRPC client with our own messages, which shows what tritonclient keeps to itself: metadata and details."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from service.rpc.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from service.rpc.server import INFERENCE

Answer = TypeVar("Answer", bound=Message)
Metadata = Sequence[tuple[str, str]]
Sent = Message | bytes

WAIT_S = 30.0


class Caller:
    """Calls one gateway over one channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel

    def start(
        self,
        method: str,
        request: Message | bytes,
        kind: type[Answer],
        metadata: Metadata = (),
        timeout: float = WAIT_S,
    ) -> Any:
        """Begin a unary call, which is a future of the answer; `timeout` is sent as `grpc-timeout`."""
        path = method if method.startswith("/") else f"/{INFERENCE}/{method}"
        call = self.channel.unary_unary(path, _serialized, kind.FromString)
        return call.future(request, metadata=tuple(metadata), timeout=timeout)

    def call(
        self,
        method: str,
        request: Message | bytes,
        kind: type[Answer],
        metadata: Metadata = (),
        timeout: float = WAIT_S,
    ) -> Answer:
        """The answer of a unary call. Raises `grpc.RpcError`."""
        answer: Answer = self.start(method, request, kind, metadata, timeout).result()
        return answer

    def infer(
        self, request: ModelInferRequest | bytes, metadata: Metadata = (), timeout: float = WAIT_S
    ) -> tuple[ModelInferResponse, Mapping[str, str]]:
        """The answer to an inference request, and the metadata behind it. Raises `grpc.RpcError`."""
        call = self.start("ModelInfer", request, ModelInferResponse, metadata, timeout)
        return call.result(), trailing(call)

    def refusal(
        self, request: ModelInferRequest | bytes, metadata: Metadata = (), timeout: float = WAIT_S
    ) -> tuple[str, str, Mapping[str, str]]:
        """Code, details and metadata of an inference request that is refused."""
        call = self.start("ModelInfer", request, ModelInferResponse, metadata, timeout)
        assert call.exception() is not None, "it is not refused"
        return call.code().name, call.details(), trailing(call)


@contextmanager
def calling(port: int) -> Iterator[Caller]:
    """A caller of the gateway whose gRPC port that is, on a connection of its own."""
    options = (("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1))
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield Caller(channel)


def trailing(call: Any) -> Mapping[str, str]:
    """The metadata behind an answer or a refusal."""
    return dict(call.trailing_metadata() or ())


def labels(response: ModelInferResponse) -> list[str]:
    """The labels of a typed answer."""
    (output,) = (one for one in response.outputs if one.name == "label")
    return [label.decode() for label in output.contents.bytes_contents]


def sign_request(*first: float, model: str = "sign", variant: str = "", **parameters: Any) -> ModelInferRequest:
    """An inference request for `sign` with one row for each value; parameters may be texts, truths and numbers."""
    rows = [value for x0 in first for value in (x0, 0.0, 0.0, 0.0)]
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(first), 4], "contents": {"fp32_contents": rows}}
    request = ModelInferRequest(model_name=model, model_version=variant, inputs=[tensor])
    fields = {str: "string_param", bool: "bool_param", int: "int64_param", float: "double_param"}
    for name, value in parameters.items():
        setattr(request.parameters[name], fields[type(value)], value)
    return request


def _serialized(request: Sent) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()
