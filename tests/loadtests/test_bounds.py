"""Upper bounds: the exact one against brute force, the linear program against the exact one and against policies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.bounds import Group, best_schedule, fluid_value, lp_bound, oracle_accuracy
from loadtests.machine import Machine
from loadtests.outcomes import Fate
from loadtests.simulator import simulate
from loadtests.traces import Shape, arrivals
from loadtests.workload import SloMix, Workload
from router.family import Family
from router.policies import policy_named
from tests.scripted import FAMILY, SAMPLES

Seconds = Sequence[Sequence[float]]


@st.composite
def instances(draw: st.DrawFn, most: int = 5) -> tuple[list[float], float, list[list[float]], list[float]]:
    """Arrivals, SLO, seconds[v][b - 1] and accuracies of a few requests and two or three variants."""
    count = draw(st.integers(1, most))
    arrival_s = sorted(draw(st.lists(st.integers(0, 20), min_size=count, max_size=count)))
    variants = draw(st.integers(1, 3))
    seconds = []
    for _ in range(variants):
        first, steps = draw(st.integers(1, 6)), draw(st.lists(st.integers(0, 4), min_size=2, max_size=2))
        seconds.append([float(first), float(first + steps[0]), float(first + sum(steps))])
    accuracy = [draw(st.integers(1, 100)) / 100.0 for _ in range(variants)]
    return [float(second) for second in arrival_s], float(draw(st.integers(1, 15))), seconds, accuracy


def sequences(left: frozenset[int], largest: int) -> Iterator[list[tuple[int, ...]]]:
    """Every ordered list of disjoint batches of some of these requests."""
    yield []
    members = sorted(left)
    for code in range(1, 1 << len(members)):
        batch = tuple(member for bit, member in enumerate(members) if code >> bit & 1)
        if len(batch) <= largest:
            for rest in sequences(left - set(batch), largest):
                yield [batch, *rest]


def brute_force(arrival_s: Sequence[float], slo_s: float, seconds: Seconds, accuracy: Sequence[float]) -> float:
    """The best sum over all batches in all orders on all variants; late batches are no option."""

    def best(batches: list[tuple[int, ...]], free_s: float) -> float:
        if not batches:
            return 0.0
        batch, *rest = batches
        values = [-1.0]
        for of_variant, worth in zip(seconds, accuracy, strict=True):
            end_s = max(free_s, *(arrival_s[i] for i in batch)) + of_variant[len(batch) - 1]
            if all(end_s <= arrival_s[i] + slo_s for i in batch):
                values.append(worth * len(batch) + best(rest, end_s))
        return max(values) if max(values) >= 0.0 else -100.0

    return max(best(order, 0.0) for order in sequences(frozenset(range(len(arrival_s))), len(seconds[0])))


def single(arrival_s: Sequence[float], slo_s: float, seconds: Seconds, accuracy: Sequence[float]) -> Group:
    """The same instance for the linear program."""
    options = [
        (min(batch_s / b for b, batch_s in enumerate(of_variant, start=1) if batch_s <= slo_s), worth)
        for of_variant, worth in zip(seconds, accuracy, strict=True)
        if of_variant[0] <= slo_s
    ]
    return Group(np.array(arrival_s), slo_s, tuple(options))


@settings(max_examples=150)
@given(instances(most=4))
def test_the_exact_bound_is_what_brute_force_finds(
    instance: tuple[list[float], float, list[list[float]], list[float]],
) -> None:
    """On instances small enough to try everything, the Pareto fronts lose no schedule and invent none."""
    assert pytest.approx(brute_force(*instance)) == best_schedule(*instance)


@settings(max_examples=150)
@given(instances(most=12), st.sampled_from([0.5, 1.0, 3.0]))
def test_the_linear_program_bounds_the_exact_value(
    instance: tuple[list[float], float, list[list[float]], list[float]], step_s: float
) -> None:
    """Whatever the grid, relaxing whole batches to a fluid never lowers the value; nor does a second executor."""
    group = single(*instance)
    one = fluid_value([group], 1, step_s)
    assert one >= best_schedule(*instance) - 1e-6
    assert fluid_value([group], 2, step_s) >= one - 1e-6
    assert one <= len(instance[0]) * max(instance[3]) + 1e-6


def test_a_bound_by_hand() -> None:
    """Two requests at once, due after 3 s: one on each variant takes 3 s, better than both quickly."""
    group = Group(np.array([0.0, 0.0]), 3.0, ((1.0, 0.5), (2.0, 0.9)))
    assert pytest.approx(1.4) == fluid_value([group], 1, 1.0)
    assert pytest.approx(1.4) == best_schedule([0.0, 0.0], 3.0, [[1.0], [2.0]], [0.5, 0.9])
    assert pytest.approx(1.8) == fluid_value([group], 2, 1.0)


def test_groups_share_the_executors() -> None:
    """A second family takes its share of the same second; the dearer work per point is left out."""
    first = Group(np.array([0.0]), 1.0, ((1.0, 0.8),))
    second = Group(np.array([0.0]), 1.0, ((0.5, 0.7),))
    assert pytest.approx(0.7 + 0.4) == fluid_value([first, second], 1, 1.0)


def test_what_cannot_be_in_time_is_worth_nothing() -> None:
    """An SLO below every variant's seconds leaves no options."""
    load = Workload(np.array([0.0, 1.0]), np.full(2, 0.0001), np.array([0, 1]))
    assert 0.0 == lp_bound(load, FAMILY, SAMPLES, 1)
    assert 0.0 == fluid_value([], 1)


def expected_accuracy(family: Family, load: Workload, policy: str, slots: int, seed: int) -> float:
    """Mean over all arrivals of the answering variant's accuracy on the row's size class, 0 where late or none."""
    run = simulate(load, family, SAMPLES, policy_named(policy), Machine(slots, noise=0.0), np.random.default_rng(seed))
    on_time = (run.results.fate == Fate.ANSWERED) & (run.results.latency_s <= load.slo_s + 1e-9)
    worth = {
        (name, size_class): float((predicted == SAMPLES.label)[size_class == SAMPLES.size_class].mean())
        for name, predicted in SAMPLES.predicted.items()
        for size_class in (0, 1)
    }
    size_class = SAMPLES.size_class[load.sample]
    return sum(worth[run.results.variant[i], size_class[i]] for i in np.flatnonzero(on_time)) / len(load)


@settings(max_examples=25)
@given(
    rate=st.floats(20.0, 1500.0),
    seed=st.integers(0, 2**32 - 1),
    slots=st.integers(1, 3),
    policy=st.sampled_from(["slack-fraction", "fastest", "most-accurate"]),
    process=st.sampled_from(["poisson", "gamma", "onoff"]),
)
def test_no_policy_beats_the_linear_program(rate: float, seed: int, slots: int, policy: str, process: str) -> None:
    """Simulated policies that answer each row once stay below the bound of their own workload."""
    rng = np.random.default_rng(seed)
    arrival_s = arrivals(process, rate, 1.0, Shape(), rng)
    if len(arrival_s) == 0:
        return
    load = Workload.draw(arrival_s, SloMix.parse("10:0.3,40:0.4,120:0.3"), len(SAMPLES), rng)
    assert expected_accuracy(FAMILY, load, policy, slots, seed) <= lp_bound(load, FAMILY, SAMPLES, slots) + 1e-6


def test_slower_machines_have_lower_bounds() -> None:
    """Noise whose mean exceeds its median costs capacity."""
    rng = np.random.default_rng(1)
    load = Workload.draw(arrivals("poisson", 600.0, 2.0, Shape(), rng), SloMix.parse("40"), len(SAMPLES), rng)
    assert lp_bound(load, FAMILY, SAMPLES, 1, 1.2) < lp_bound(load, FAMILY, SAMPLES, 1, 1.0)


def test_the_oracle_counts_samples_that_somebody_answers_right() -> None:
    """The large variant answers all four, the small one three of them."""
    load = Workload(np.linspace(0.0, 1.0, 4), np.full(4, 0.1), np.arange(4))
    assert 1.0 == oracle_accuracy(load, FAMILY, SAMPLES)
    only_small = Family("scripted", FAMILY.variants[:1], sizes=FAMILY.sizes, max_batch=8)
    assert 0.75 == oracle_accuracy(load, only_small, SAMPLES)
