"""What an executor does: batch after batch, one at a time, until the gateway is gone."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from time import monotonic, perf_counter
from typing import Any

import orjson

from router.words import Reason
from service.processes.messages import MOST_BYTES, READY
from service.processes.tensors import Area
from variants.session import Session
from variants.stages import run_stages

LOGITS, STATE = "logits", "state"
"""What a batch gives, as it is called in its area."""
_MEMORY_ENDED = ("bad_alloc", "bad allocation", "Failed to allocate memory")
"""What runtimes say where they raise something of their own."""


def execute(connection: socket.socket, areas: Sequence[int], models: Mapping[int, Session]) -> None:
    """Serve the gateway at the other end of the connection. `areas` are files of memory that is shared with it.

    A batch is [its number, which area, the models that are run in order, where their inputs lie], its end [its number,
    the seconds that they ran, when that ended on the monotonic clock, where the answer lies], written over the inputs,
    or [.., {"fault": reason, "said": one line}].
    """
    shared = [Area(file) for file in areas]
    connection.send(READY)
    while message := connection.recv(MOST_BYTES):
        number, at, wanted, told = orjson.loads(message)
        started_s = perf_counter()
        try:
            answer = run_stages([models[one] for one in wanted], shared[at].read(told))
            ran_s = perf_counter() - started_s
            arrays = {LOGITS: answer.logits} if answer.state is None else {LOGITS: answer.logits, STATE: answer.state}
            said: Any = shared[at].write(arrays)
        except Exception as error:  # noqa: BLE001 - runtimes raise many unrelated types
            ran_s = perf_counter() - started_s
            text = " ".join(str(error).split())[:500]
            said = {"fault": _fault(error, text).value, "said": f"{type(error).__name__}: {text}"}
        try:
            connection.send(orjson.dumps([number, ran_s, monotonic(), said]))
        except BrokenPipeError:
            # Nobody waits for it any more.
            return


def _fault(error: Exception, text: str) -> Reason:
    ended = isinstance(error, MemoryError) or any(word in text for word in _MEMORY_ENDED)
    return Reason.OUT_OF_MEMORY if ended else Reason.EXECUTOR_ERROR
