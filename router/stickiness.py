"""Which variant a caller keeps for a while, so that equal questions in one session do not get different answers.

The first answer begins a hold on the variant that gave it. It lasts `sticky_s` from then, however often the caller asks
meanwhile: a hold that began in a busy moment does not stay for good. It is a wish: see
`router.admission.has_time_for` for when a deadline goes before it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from router.request import Request

MOST_HOLDS = 4096
"""The oldest hold is forgotten for a new one beyond that."""
PATIENCE = 0.5
"""A variant is kept where it would be done within this share of the time left, others that go first included: so a hold
gives way before it makes anybody late."""


class Hold(NamedTuple):
    """A caller keeps this variant until then."""

    variant: str
    until_s: float


class Stickiness:
    """Holds by family, tenant and session."""

    __slots__ = ("_holds",)

    def __init__(self) -> None:
        self._holds: OrderedDict[tuple[str, str, str], Hold] = OrderedDict()

    def held(self, request: Request, now: float) -> str | None:
        """The variant that the caller of this request keeps, `None` where it keeps none."""
        if request.sticky_s <= 0.0 or request.pinned is not None:
            return None
        hold = self._holds.get(_caller(request))
        return hold.variant if hold is not None and now < hold.until_s else None

    def answered(self, request: Request, variant: str, now: float) -> None:
        """A request was answered; a hold that lasts stays as it is, though this once another variant answered."""
        if request.sticky_s <= 0.0 or request.pinned is not None or self.held(request, now) is not None:
            return
        caller = _caller(request)
        self._holds.pop(caller, None)
        if len(self._holds) >= MOST_HOLDS:
            self._holds.popitem(last=False)
        self._holds[caller] = Hold(variant, now + request.sticky_s)

    def __len__(self) -> int:
        return len(self._holds)


def _caller(request: Request) -> tuple[str, str, str]:
    return request.family, request.tenant, request.session
