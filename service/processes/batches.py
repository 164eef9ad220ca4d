"""What a slot has with an executor: the process, the batches that are there, and what came of one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from router.contract import Dispatch
from router.words import Reason
from service.loaded_family import LoadedFamily
from service.processes.executor import LOGITS, STATE
from service.processes.links import Link
from service.processes.models import HostedSession
from service.processes.tensors import TensorError
from service.runner import ModelFaultError, answers_of
from service.work import Ran
from variants.preparation import Row
from variants.stages import StageAnswer


class Sent(NamedTuple):
    """A batch that the executor has: which area it is in, and what its answer is made with."""

    area: int
    dispatch: Dispatch
    rows: Sequence[Row]
    loaded: LoadedFamily
    stages: Sequence[HostedSession]


class Executor:
    """One process, made in a `generation` of models, and the batches that it has, oldest first."""

    def __init__(self, link: Link, generation: int) -> None:
        self.link = link
        self.generation = generation
        self.is_ready = False
        self.is_gone = False
        """It takes no more batches, and its end is about to be told."""
        self.is_mad = False
        """It is killed because it said what makes no sense, as one does whose model has written over its memory."""
        self.sent: dict[int, Sent] = {}
        self.limit: asyncio.TimerHandle | None = None
        """Ends it where it does not begin."""


def outcome_of(executor: Executor, sent: Sent, said: object) -> Ran | Exception:
    """What came of a batch. Raises `TensorError` and others where what is said of it cannot be so."""
    if isinstance(said, dict):
        return ModelFaultError(Reason(said["fault"]), str(said["said"]))
    if not isinstance(said, list):
        raise TensorError(f"not an answer: {str(said)[:100]}")
    arrays = executor.link.areas[sent.area].read(said)
    if LOGITS not in arrays:
        raise TensorError("an answer without logits")
    answer = StageAnswer(arrays[LOGITS], arrays.get(STATE))
    try:
        return answers_of(sent.loaded, sent.dispatch.variant, sent.stages, sent.rows, answer)
    except Exception as error:  # noqa: BLE001 - what is no answer is the batch's fault
        return error
