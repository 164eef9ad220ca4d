"""How the routing benchmark compares runs with the linear-programming bound."""

from __future__ import annotations

import pytest

from loadtests.machine import Machine
from loadtests.routing_bounds import bound_goal, fractions, mean_over_median
from loadtests.routing_table import RunTable
from tests.loadtests.test_routing import run


def test_fractions_are_of_the_bound_of_the_same_workload() -> None:
    """Each seed is divided by its own bound, and the goal is on the mean."""
    runs = [run("casc", "a", 0.8, 1), run("casc", "a", 0.6, 2)]
    table = RunTable.of(runs)
    bounds = {("a", 1): 0.8, ("a", 2): 0.75}
    assert {"a": pytest.approx([1.0, 0.8])} == fractions(table, bounds, "casc")
    goal = bound_goal(table, bounds, "casc")
    assert (False, True) == (goal.met, goal.measured.startswith("0.900"))
    assert bound_goal(table, {}, "casc").met is None


def test_the_mean_of_noisy_batches_is_above_their_median() -> None:
    """Stragglers and a slow machine count too."""
    assert mean_over_median(Machine(noise=0.0)) == 1.0
    slow = Machine(noise=0.0, slowdown=1.5, stragglers=0.1, straggler_factor=3.0)
    assert mean_over_median(slow) == pytest.approx(1.8)
    assert mean_over_median(Machine(noise=0.2)) > 1.0
