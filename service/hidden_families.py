"""Revisions on trial are families of their own to the scheduler, under hidden names; everybody else reads the model's.

A hidden name has a character that no family's name may have, so that no caller can ask for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from router.contract import BatchRecord, Outcome, Reason, Record

MARK = "@"


class Observer(Protocol):
    """See `service.dispatcher.Observer`."""

    def observe(self, records: Sequence[Record], batches: Sequence[BatchRecord]) -> None:
        """Take note of requests and batches that ended."""


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


class Unmasked:
    """Tells an observer what happened under the models' names.

    A request that falls back is not told of: it has another record once it is answered.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def observe(self, records: Sequence[Record], batches: Sequence[BatchRecord]) -> None:
        """See `service.dispatcher.Observer`."""
        if any(MARK in record.family for record in records):
            records = [unmasked(one) for one in records if not (MARK in one.family and falls_back(one))]
        if any(MARK in batch.dispatch.family for batch in batches):
            batches = [
                batch._replace(dispatch=batch.dispatch._replace(family=model_of(batch.dispatch.family)))
                for batch in batches
            ]
        self._observer.observe(records, batches)


def unmasked(record: Record) -> Record:
    """The record under the model's name."""
    return record._replace(family=model_of(record.family)) if MARK in record.family else record
