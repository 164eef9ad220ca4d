"""Who may use how much of a crowded machine: max-min fair shares of its time, by family and by tenant.

While there is time for everybody, shares mean nothing. Where there is not, a flow (all requests of one family, or of
one tenant, `router.flows`) is entitled to what max-min fairness leaves it, however much it asks for
(`router.water_filling`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from router.family import EVEN, Share
from router.flows import OTHERS, FlowKey, Flows
from router.request import Request


def jain(values: Sequence[float]) -> float:
    """Jain's fairness index of some values of at least 0: 1 where all are equal, 1 / n where one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares > 0.0 else 1.0


class Fairness:
    """The shares of all families and tenants on a machine of so many slots. A request must be within both of its own.

    `tenants` has what the tenants may count on that are known; all others together have one share, that of `OTHERS` if
    it is named, or whoever makes up names would have as many shares. Without `tenants` each has an even share. Where
    only one family and one tenant ask, everything is within: there is nobody to be fair to.
    """

    __slots__ = ("_families", "_shares", "_tenants")

    def __init__(self, slots: float, tenants: Mapping[str, Share] | None = None) -> None:
        self._families, self._tenants = Flows(slots), Flows(slots)
        self._shares = None if tenants is None else {OTHERS: EVEN, **tenants}

    @property
    def tenants(self) -> int:
        """How many flows of tenants there are; bounded."""
        return len(self._tenants)

    def change(self, tenants: Mapping[str, Share]) -> None:
        """Tenants may count on other shares from now on."""
        self._shares = {OTHERS: EVEN, **tenants}

    def ask(self, request: Request, share: Share, work_s: float, now: float, stretch: float = 1.0) -> None:
        """A request came that takes so many seconds at its cheapest in full batches, `stretch` times as long in those
        that come; `share` is its family's.
        """
        slo_s = request.deadline_s - request.arrival_s
        self._families.ask(request.family, share, work_s, slo_s, now, stretch)
        self._tenants.ask(*self._tenant(request), work_s, slo_s, now, stretch)

    def beyond(self, request: Request, share: Share, work_s: float, by_s: float, now: float) -> Flows | None:
        """The flows of the kind in which it asks for more than its share; none where it is within both.

        Where that is so of both, one in which it is not owed to it.
        """
        slo_s = request.deadline_s - request.arrival_s
        families, tenants = self._families, self._tenants
        found = None
        if len(families) > 1 and not families.is_within(request.family, share, work_s, slo_s, by_s, now):
            found = families
            if not self.is_owed(request, share, families, work_s, by_s, now):
                return found
        beyond = len(tenants) > 1 and not tenants.is_within(*self._tenant(request), work_s, slo_s, by_s, now)
        return tenants if beyond else found

    def is_owed(self, request: Request, share: Share, kind: Flows, work_s: float, by_s: float, now: float) -> bool:
        """Whether a request beyond its share of that kind is owed to its flow all the same: see `router.flows`."""
        name, share = (request.family, share) if kind is self._families else self._tenant(request)
        return kind.is_owed(name, share, work_s, request.deadline_s - request.arrival_s, by_s, now)

    def admit(self, request: Request, share: Share, work_s: float, by_s: float, now: float) -> None:
        """It is let in."""
        slo_s = request.deadline_s - request.arrival_s
        if len(self._families) > 1:
            self._families.admit(request.family, share, work_s, slo_s, by_s, now)
        if len(self._tenants) > 1:
            self._tenants.admit(*self._tenant(request), work_s, slo_s, by_s, now)

    def flow_of(self, request: Request, flows: Flows) -> FlowKey:
        """The flow of a request of one kind."""
        family, tenant = self.flows_of(request)
        return family if flows is self._families else tenant

    def flows_of(self, request: Request) -> tuple[FlowKey, FlowKey]:
        """The flow of its family and that of its tenant."""
        return FlowKey(False, request.family), FlowKey(True, self._tenant(request)[0])

    def excess(self, flow: FlowKey, now: float) -> float:
        """What a flow asks for over what it may use."""
        return (self._tenants if flow.is_tenant else self._families).excess(flow.name, now)

    def due_s(self, request: Request, flows: Flows, within_s: float) -> float:
        """See `Flows.due_s`."""
        return flows.due_s(self.flow_of(request, flows).name, within_s)

    def _tenant(self, request: Request) -> tuple[str, Share]:
        """The flow of its tenant and that one's share."""
        if self._shares is None:
            return request.tenant, EVEN
        name = request.tenant if request.tenant in self._shares else OTHERS
        return name, self._shares[name]
