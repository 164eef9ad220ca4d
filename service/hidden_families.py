"""Revisions on trial are families of their own to the scheduler, under hidden names; everybody else reads the model's.

A hidden name has a character that no family's name may have, so that no caller can ask for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from router.contract import BatchRecord, Hints, Record
from router.words import Outcome, Reason
from service.observers import Observer, tell_each

MARK = "@"


def hidden_name(model: str, revision: str, number: int) -> str:
    """What the scheduler calls a revision of a model while it is on trial; `number` tells trials apart."""
    return f"{model}{MARK}{revision}{MARK}{number}"


def is_hidden(family: str) -> bool:
    """Whether that is the name of a revision on trial."""
    return MARK in family


def model_of(family: str) -> str:
    """The model's name, whether that is the family's own or hidden."""
    return family.partition(MARK)[0]


def falls_back(record: Record) -> bool:
    """Whether a request that ended so at the revision on trial is answered by the one that serves instead.

    It is refused or has failed by a fault of the revision, not because of what the caller did or asked for.
    """
    if record.outcome is Outcome.FAILED:
        return record.reason is not Reason.SHUTDOWN
    return record.outcome in (Outcome.REJECTED_INFEASIBLE, Outcome.REJECTED_FULL)


def was_given_up(record: Record) -> bool:
    """Whether a request ended without an answer by what the caller did or asked for, and not by a fault or the end."""
    return not record.variant and not falls_back(record) and record.reason is not Reason.SHUTDOWN


class Unmasked:
    """Tells observers what happened under the models' names.

    A request that falls back is not told of: it has another record once it is answered.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def observe(self, records: Sequence[Record], batches: Sequence[BatchRecord]) -> None:
        """See `service.observers.Observer`."""
        # Loops and no generators: this is done at every turn, mostly for nothing.
        for record in records:
            if MARK in record.family:
                records = [unmasked(one) for one in records if not (MARK in one.family and falls_back(one))]
                break
        for batch in batches:
            if MARK in batch.dispatch.family:
                batches = [_unmasked_batch(one) for one in batches]
                break
        tell_each(self._observers, records, batches)


def unmasked(record: Record) -> Record:
    """The record under the model's name."""
    return record._replace(family=model_of(record.family)) if MARK in record.family else record


def hinted(hints: Hints, hidden: Iterable[str]) -> Hints:
    """The advice, which is by model, with that of their models for these hidden families."""
    models = {name: model_of(name) for name in hidden}
    if not models:
        return hints

    def told(by_model: Mapping[str, float]) -> Mapping[str, float]:
        return {**by_model, **{name: by_model[model] for name, model in models.items() if model in by_model}}

    return replace(hints, caution=told(hints.caution), floors=told(hints.floors), weights=told(hints.weights))


def _unmasked_batch(batch: BatchRecord) -> BatchRecord:
    return batch._replace(dispatch=batch.dispatch._replace(family=model_of(batch.dispatch.family)))
