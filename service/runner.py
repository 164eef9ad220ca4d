"""Where models run: one batch at a time per slot, in a thread of the slot's own or, when tiny, on the event loop.

Handing a batch to a thread and its answer back costs some 50 microseconds; a batch that takes less than that is
cheaper run at once. onnxruntime releases the interpreter lock while it computes.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from math import isfinite
from time import perf_counter

from router.contract import Dispatch
from router.words import Reason
from service.crash_marker import CrashMarker
from service.executors import MakeSlots, SlotEvents
from service.loaded_family import LoadedFamily
from service.work import Ran
from variants.preparation import Feeds, Row
from variants.session import Session
from variants.stages import StageAnswer, collate_states, cut_states, run_stages


class RunnerError(Exception):
    """A model gave something that is not an answer."""


class ModelFaultError(Exception):
    """A model failed in a process of its own, for this `reason`."""

    def __init__(self, reason: Reason, said: str) -> None:
        super().__init__(said)
        self.reason = reason


def fault_of(error: Exception) -> Reason:
    """What a batch that raised this failed by."""
    if isinstance(error, ModelFaultError):
        return error.reason
    if isinstance(error, RunnerError):
        return Reason.WRONG_OUTPUT
    return Reason.OUT_OF_MEMORY if isinstance(error, MemoryError) else Reason.EXECUTOR_ERROR


def run_variant(
    loaded: LoadedFamily,
    variant: str,
    rows: Sequence[Row],
    from_stage: int = 0,
    to_stage: int | None = None,
    device: str = "",
) -> Ran:
    """Run a variant, by default from its beginning to its end; `rows` are states where it goes on from a later stage.

    It runs in the sessions of that `device`, by default those of the first. Raises `RunnerError` where the logits have
    a wrong shape or are not finite, and whatever its runtime raises.
    """
    stages = loaded.paths_on(device)[variant][from_stage:to_stage]
    return answers_of(loaded, variant, stages, rows, run_stages(stages, feeds_of(loaded, stages, rows, from_stage)))


def feeds_of(loaded: LoadedFamily, stages: Sequence[Session], rows: Sequence[Row], from_stage: int) -> Feeds:
    """What the first of the stages is to be given for a batch."""
    return collate_states(stages[0], rows) if from_stage else loaded.preparer.collate(rows)


def answers_of(
    loaded: LoadedFamily, variant: str, stages: Sequence[Session], rows: Sequence[Row], answer: StageAnswer
) -> Ran:
    """What the last of the stages gave for a batch, read. Raises `RunnerError` where it is no answer."""
    logits, state = answer
    expected = (len(rows), len(loaded.label_names))
    if logits.shape != expected:
        raise RunnerError(f"{loaded.family.name}/{variant}: logits {logits.shape}, expected {expected}")
    answers = loaded.preparer.decode(logits, loaded.temperatures[variant])
    if not all(map(isfinite, answers.confidences.tolist())):
        raise RunnerError(f"{loaded.family.name}/{variant}: the answer is not finite")
    if state is None or variant not in loaded.beginnings:
        return Ran(answers)
    return Ran(answers, cut_states(stages[-1], state, [len(row) for row in rows]))


class BatchRunner:
    """Runs dispatches on loaded families; called by slots, holds no state of its own.

    What runs is noted with the `marker`, for who comes after this process if a model ends it.
    """

    def __init__(self, families: Mapping[str, LoadedFamily], marker: CrashMarker | None = None) -> None:
        self._families = families
        self._marker = marker

    def attempt(self, dispatch: Dispatch, rows: Sequence[Row]) -> tuple[Ran | Exception, float]:
        """What `run` returns or raises, and the seconds it took: whatever a model does, requests get an outcome."""
        outcome: Ran | Exception
        if self._marker is not None:
            self._marker.begin(dispatch.slot, dispatch.family, dispatch.revision, dispatch.variant)
        started_s = perf_counter()
        try:
            outcome = self.run(dispatch, rows)
        except Exception as error:  # noqa: BLE001 - onnxruntime raises many unrelated types
            outcome = error
        ran_s = perf_counter() - started_s
        if self._marker is not None:
            self._marker.end(dispatch.slot)
        return outcome, ran_s

    def run(self, dispatch: Dispatch, rows: Sequence[Row]) -> Ran:
        """Labels and probabilities of the rows, in order, and what they leave for a longer path.

        `rows` are prepared inputs, or the states that earlier stages left where the dispatch goes on from them. Raises
        as `run_variant` does.
        """
        loaded = self._families[dispatch.family]
        return run_variant(loaded, dispatch.variant, rows, dispatch.from_stage, dispatch.to_stage, dispatch.device)


class _Word(Enum):
    """What a slot's thread is told between batches."""

    RESTORED = "restored"
    STOP = "stop"


class SlotThread:
    """The thread of one slot; with `cores`, it runs on those processor cores alone. See `service.executors`.

    A thread cannot be ended from outside: one that hangs is out of service until what it runs comes back by itself.
    """

    def __init__(self, index: int, runner: BatchRunner, events: SlotEvents, cores: Collection[int] = ()) -> None:
        self._queue: queue.SimpleQueue[tuple[Dispatch, Sequence[Row]] | _Word] = queue.SimpleQueue()
        self._index = index
        self._runner = runner
        self._events = events
        self._cores = cores
        self._thread = threading.Thread(target=self._work, name=f"slot-{index}", daemon=True)
        self._thread.start()

    def start(self, dispatch: Dispatch, rows: Sequence[Row]) -> None:
        """Begin a batch once those begun before are done; the scheduler gives a slot one ahead at most."""
        self._queue.put((dispatch, rows))

    def give_up(self) -> None:
        """See `SlotExecutor`. What was begun before this word comes before it."""
        self._queue.put(_Word.RESTORED)

    def stop(self) -> None:
        """Let the thread end after what it is running."""
        self._queue.put(_Word.STOP)

    def _work(self) -> None:
        if self._cores:
            os.sched_setaffinity(0, self._cores)
        while (job := self._queue.get()) is not _Word.STOP:
            if isinstance(job, _Word):
                self._events.restored(self._index)
                continue
            dispatch, rows = job
            self._events.done(dispatch.batch_id, *self._runner.attempt(dispatch, rows))


def slots_of_threads(runner: BatchRunner, cores: Sequence[Collection[int]]) -> MakeSlots:
    """Slots that run batches on threads of their own, each on its cores where it has some."""
    return lambda events: [SlotThread(index, runner, events, own) for index, own in enumerate(cores)]
