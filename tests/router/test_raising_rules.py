"""A rule that raises while something breaks: nothing is forgotten by that, and no row is left without an end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from router.family import Family
from router.latency import LatencyModel
from router.policies import policy_named
from router.view import Decision, View
from router.words import Outcome, Reason
from tests.router.bench import Bench


class Raises:
    """Most accurate first; raises as often as it is told to, when it decides or when it is to make tables."""

    def __init__(self) -> None:
        self.rule = policy_named("most-accurate")
        self.decides = self.prepares = 0

    def prepare(self, families: Sequence[tuple[Family, LatencyModel]]) -> object:
        """Nothing, or raise."""
        if self.prepares:
            self.prepares -= 1
            raise ZeroDivisionError("tables")
        return None

    def adopt(self, state: object, family: str, prepared: object | None) -> object:
        """There is nothing to remember."""
        return None

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """As the rule, or raise."""
        if self.decides:
            self.decides -= 1
            raise ZeroDivisionError("decision")
        return self.rule.decide(state, view, now)


def test_what_hangs_and_what_is_due_is_told_by_the_next_poll() -> None:
    """The poll that found it has raised after that."""
    rule = Raises()
    bench = Bench(slots=2, policy=rule)
    bench.submit(1, pinned="large")
    bench.submit(2, slo_s=9.0)
    bench.fail(0.01, Reason.CRASHED)
    bench.poll(1.005)
    bench.submit(3, 1.005, slo_s=9.0)
    rule.decides = 1
    with pytest.raises(ZeroDivisionError):
        bench.poll(1.4)
    bench.scheduler.abandon_all(1.4, Reason.INTERNAL_ERROR)
    poll = bench.poll(1.4)
    assert ([2], ["large"]) == (
        [item.request_id for dispatch in poll.hung for item in dispatch.items],
        [spell.variant for spell in poll.probes],
    )
    assert () == bench.poll(1.4).hung


def test_all_that_hangs_is_given_up_though_a_rule_raises_on_the_first() -> None:
    """Each has lost its slot, and is told."""
    rule = Raises()
    bench = Bench(slots=2, policy=rule)
    bench.submit(1, slo_s=9.0, pinned="large")
    bench.submit(2, slo_s=9.0, pinned="middle")
    bench.poll(1.1)
    rule.prepares = 2
    with pytest.raises(ZeroDivisionError):
        bench.poll(1.4)
    assert ([0, 1], 2) == ([dispatch.slot for dispatch in bench.poll(1.4).hung], bench.scheduler.lost_slots)


def test_rows_wait_again_though_a_rule_raises_on_the_quarantine() -> None:
    """The variant is held all the same, and the family knows that."""
    rule = Raises()
    bench = Bench(policy=rule)
    bench.submit(1)
    rule.prepares = 1
    with pytest.raises(ZeroDivisionError):
        bench.fail(0.01, Reason.CRASHED)
    bench.poll(0.01)
    assert (["middle"], (2,)) == (bench.variants(), bench.scheduler.families["f"].quarantined)
    bench.complete(0.02)
    assert [Outcome.SERVED] == [record.outcome for record in bench.records]


def test_a_variant_is_back_though_a_rule_raises_on_that() -> None:
    """Its probe has answered."""
    rule = Raises()
    bench = Bench(policy=rule)
    bench.submit(1, pinned="large")
    bench.fail(0.01, Reason.CRASHED)
    (spell,) = bench.poll(1.01).probes
    rule.prepares = 1
    with pytest.raises(ZeroDivisionError):
        bench.scheduler.probed(spell, None, 1.02)
    bench.submit(2, 1.02)
    assert ["large"] == bench.variants()
