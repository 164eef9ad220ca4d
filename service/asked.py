"""What a caller asks of a family, and the request that the scheduler gets for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

from router.request import NEVER, Origin, Request
from service.exchange import Receive
from service.loaded_family import LoadedFamily
from service.oip.terms import Terms
from service.settings import Settings
from service.tenants import NO_TENANT, Tenants

URGENCY_LEVELS = 10
"""Priorities 1 (most urgent) to 10; larger ones count as 10."""


class Asked(NamedTuple):
    """`name` is the request's id, `receive` the ASGI channel of the caller. `arrival_s` is on the monotonic clock.

    `again` says that it was taken in before and is asked of another revision now, `charged` that its tenant's quota
    counted it then; `drawn` that it fell to the revision on trial.
    """

    inputs: Mapping[str, NDArray[Any]]
    terms: Terms
    arrival_s: float
    variant: str | None
    receive: Receive | None
    name: str
    origin: Origin
    again: bool = False
    charged: bool = False
    drawn: bool = False

    @property
    def drawn_by(self) -> str:
        """The name by which it falls to one revision or the other: one tenant sees one revision."""
        return self.name if self.terms.tenant == NO_TENANT else self.terms.tenant


def new_request(
    number: int,
    loaded: LoadedFamily,
    row_classes: tuple[int, ...],
    terms: Terms,
    arrival_s: float,
    variant: str | None,
    origin: Origin,
    settings: Settings,
    tenants: Tenants,
) -> Request:
    """The request of that number, which is unique; of `loaded` it has revision and name, hidden or not."""
    deadline_s = NEVER if terms.slo_s is None else arrival_s + min(terms.slo_s, terms.timeout_s)
    own = tenants.of(terms.tenant)
    return Request(
        number,
        loaded.family.name,
        row_classes,
        arrival_s,
        deadline_s,
        arrival_s + terms.timeout_s,
        terms.min_accuracy,
        min(terms.priority or own.priority or settings.default_priority, URGENCY_LEVELS),
        terms.tenant,
        terms.service_class,
        variant,
        terms.when_late,
        loaded.family.revision,
        own.sticky_s,
        terms.session,
        origin=origin,
    )
