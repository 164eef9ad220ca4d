"""OpenVINO on the CPU: reads the ONNX files of onnxruntime as they are, with rows and tokens of any number.

With one slot a batch runs on the thread that asks for it; with more, on threads of OpenVINO's own, one group for each
slot: a compiled model of one stream would run one batch at a time. Measured with two callers at a time on two cores, a
4-layer text encoder in int8: 1,094 answers a second with two streams against 552 with one, for 3 MB more of memory.

What OpenVINO makes for a shape it keeps as long as the model is open, and its own bound (`CPU_RUNTIME_CACHE_CAPACITY`)
does not hold for the operators of int8 graphs. So batches are padded to few shapes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from numpy.typing import NDArray

from variants.preparation import ATTENTION_MASK
from variants.runtimes.contract import Model, SessionOptions, Tensors
from variants.runtimes.padding import padded, round_up
from variants.tables import HeldTable

# Importing OpenVINO sends a message about that to its makers, unless what sends it cannot be imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # None is how an import is forbidden

import openvino  # noqa: E402 - see above

_DEVICE = "CPU"
_ROWS_BITS, _TOKENS_BITS, _LEAST_TOKENS = 2, 3, 8
"""Rows of 1, 2, 3, 4, 6, 8, 12, ... and tokens of 8, 10, 12, 14, 16, 20, ...: the shapes that batches are run in."""


class OpenvinoModel:
    """A compiled model, and as many requests as may run at a time. Rows have up to `longest` tokens, if any.

    `read` is the model before it was compiled, which joins names: an output may have got that of another node as well.
    """

    __slots__ = ("_compiled", "_longest", "_requests", "input_names", "output_names")

    def __init__(
        self, compiled: openvino.CompiledModel, read: openvino.Model, slots: int, longest: int | None = None
    ) -> None:
        self.input_names: tuple[str, ...] = tuple(node.get_any_name() for node in read.inputs)
        self.output_names: tuple[str, ...] = tuple(node.get_any_name() for node in read.outputs)
        self._longest = longest if ATTENTION_MASK in self.input_names else None
        self._compiled = compiled
        self._requests: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _ in range(slots):
            self._requests.put(compiled.create_infer_request())

    def run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        """See `variants.runtimes.contract.Model`. `KeyError` where an input is missing."""
        given = [feeds[name] for name in self.input_names]
        rows, tokens = len(given[0]), given[0].shape[1] if self._longest is not None else 0
        room = (round_up(rows, _ROWS_BITS), *self._tokens(tokens))
        inputs = [padded(array, (*room, *array.shape[len(room) :])) for array in given]
        request = self._requests.get()
        try:
            # Inputs are read where they lie; what is given is copied, for the next batch would overwrite it.
            answers = request.infer(inputs, share_inputs=True, share_outputs=False).to_tuple()
        finally:
            self._requests.put(request)
        # What has tokens, too, is a state [n, t, d] that another stage goes on from.
        real = [answer[:rows, :tokens] if tokens and answer.ndim > 2 else answer[:rows] for answer in answers]
        return dict(zip(self.output_names, real, strict=True))

    def _tokens(self, tokens: int) -> tuple[int, ...]:
        """How many tokens rows are padded to; nothing where rows have none, or nobody knows how many they may have."""
        if self._longest is None:
            return ()
        return (max(tokens, min(self._longest, max(_LEAST_TOKENS, round_up(tokens, _TOKENS_BITS)))),)

    def close(self) -> None:
        """Forget the compiled model and its requests."""
        self._requests = SimpleQueue()
        del self._compiled


def open_model(path: Path, options: SessionOptions, _tables: Mapping[str, HeldTable], precision: str = "f32") -> Model:
    """See `variants.runtimes.contract.OpenModel`; `precision` is what float32 graphs are computed in."""
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": options.slots,
        "INFERENCE_NUM_THREADS": options.slots * options.threads,
        # Which cores slots run on is the gateway's business.
        "ENABLE_CPU_PINNING": False,
        # Left to itself, OpenVINO computes in bfloat16 wherever the processor can.
        "INFERENCE_PRECISION_HINT": precision,
    }
    read = core().read_model(path)
    return OpenvinoModel(core().compile_model(read, _DEVICE, settings), read, options.slots, options.longest)


def prepare() -> None:
    """Load OpenVINO's own code for processors, which is done once in a process."""
    can_bfloat16()


def can_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16 faster than in float32."""
    return "BF16" in core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")


@lru_cache(maxsize=1)
def core() -> openvino.Core:
    """What all models of the process are made by."""
    return openvino.Core()
