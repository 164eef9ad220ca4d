"""The policy of one scheduler with what it remembers, and when it is to be asked again."""

from __future__ import annotations

from collections.abc import Iterable

from router.family import Family
from router.latency import LatencyModel
from router.request import NEVER, Item
from router.view import CascadePolicy, Decision, Policy, PreparedPolicy, View
from router.viewer import Known


class Rule:
    """Asks a policy, and keeps its state from one call to the next.

    `wake_at` is when the policy is to be asked again though nothing has happened; whoever changes what waits, or what
    may run, sets it earlier.
    """

    __slots__ = ("_cascades", "_policy", "_state", "wake_at")

    def __init__(self, policy: Policy, families: Iterable[Known]) -> None:
        self._policy = policy
        self._cascades = policy if isinstance(policy, CascadePolicy) else None
        self._state: object = None
        if isinstance(policy, PreparedPolicy):
            self._state = policy.prepare([known for known in families if known.family.ladder])
        self.wake_at = NEVER

    @property
    def cascades(self) -> bool:
        """Whether rows may be answered more than once, each time better."""
        return self._cascades is not None

    def decide(self, view: View, at_s: float) -> Decision:
        """What to do at that moment."""
        self._state, decision = self._policy.decide(self._state, view, at_s)
        return decision

    def keeps(self, known: Known, answered: Item, now: float) -> bool:
        """Whether a row with an answer waits for a better one; only where it `cascades`."""
        assert self._cascades is not None, "asked where rows may be answered more than once"
        return self._cascades.keeps(self._state, known.family, known.latency, answered, now)

    def tables(self, family: Family, latency: LatencyModel) -> object | None:
        """What takes long to make of a family, for `adopt`; `None` where it is cold or the policy has no tables."""
        if isinstance(self._policy, PreparedPolicy) and family.ladder:
            return self._policy.prepare([(family, latency)])
        return None

    def adopt(self, name: str, tables: object | None) -> None:
        """A family has changed, and these tables are for what it is now; without any it is cold or gone."""
        self._state = self._adopted(self._state, name, tables)

    def relearn(self, known: Known) -> None:
        """As `adopt`, with tables that are made now. A policy that raises on that remembers nothing any more."""
        state, self._state = self._state, None
        self._state = self._adopted(state, known.family.name, self.tables(*known))

    def _adopted(self, state: object, name: str, tables: object | None) -> object:
        if isinstance(self._policy, PreparedPolicy):
            return self._policy.adopt(state, name, tables)
        # What other rules remember may name variants that are gone.
        return None
