"""The fleet in virtual time: the fewest in flight are next, nothing is lost, one replica is the simulator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.balanced import hand_out, simulate_fleet
from loadtests.machine import Machine
from loadtests.outcomes import Fate, Results
from loadtests.scoring import score
from loadtests.simulator import Replica, replica, requests_of, simulate
from loadtests.traces import Shape, arrivals
from loadtests.workload import SloMix, Workload
from router.limits import Limits
from router.policies import policy_named
from tests.scripted import FAMILY, SAMPLES

EXACT = Machine(noise=0.0)
LARGE_S = 0.008
"""Of one row, by the variant `large`."""


def workload(rate: float, seed: int, duration_s: float = 2.0) -> Workload:
    rng = np.random.default_rng(seed)
    arrival_s = np.append(0.0, arrivals("poisson", rate, duration_s, Shape(), rng))
    return Workload.draw(arrival_s, SloMix.parse("40:0.5,120:0.5"), len(SAMPLES), rng)


def at(*arrival_s: float) -> Workload:
    count = len(arrival_s)
    return Workload(np.array(arrival_s), np.full(count, 1.0), np.zeros(count, dtype=np.int64))


def fleet(load: Workload, machine: Machine, count: int, policy: str = "slack-fraction", seed: int = 0) -> Results:
    policies = [policy_named(policy) for _ in range(count)]
    rngs = [np.random.default_rng([seed, number]) for number in range(count)]
    return simulate_fleet(load, FAMILY, SAMPLES, policies, machine, rngs, Limits(), 1.12)


def handed(load: Workload, machines: list[Machine]) -> list[list[int]]:
    """The requests that each replica got, in order of arrival."""
    replicas: list[Replica] = [
        replica(load, FAMILY, SAMPLES, policy_named("fixed:large"), machine, np.random.default_rng(0))
        for machine in machines
    ]
    hand_out(requests_of(load, FAMILY, SAMPLES, machines[0]), replicas)
    return [sorted(record.request_id for record in one.records) for one in replicas]


def test_idle_replicas_take_turns() -> None:
    """Where nothing is in flight, the replica that was idle for the longest time is next."""
    assert [[0, 3], [1, 4], [2]] == handed(at(0.0, 1.0, 2.0, 3.0, 4.0), [EXACT] * 3)


def test_the_fewest_in_flight_are_next() -> None:
    """A replica whose request has not ended gets none while others have fewer."""
    slow = Machine(noise=0.0, slowdown=10.0)
    assert [[0], [1, 2, 3]] == handed(at(0.0, *(2 * LARGE_S * turn for turn in (1, 2, 3))), [slow, EXACT])


def test_all_at_once_is_shared_evenly() -> None:
    """Requests of one moment find each other in flight."""
    assert [3, 3, 3] == [len(own) for own in handed(at(*[0.0] * 9), [EXACT] * 3)]


@settings(max_examples=25, deadline=None)
@given(
    rate=st.floats(5.0, 3000.0),
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 4),
    request_s=st.sampled_from([0.0, 0.0007]),
)
def test_every_request_has_one_result(rate: float, seed: int, count: int, request_s: float) -> None:
    """Whatever the load, each request is answered or refused by one replica, and the same seed gives the same."""
    load, machine = workload(rate, seed, 0.3), Machine(noise=0.2, request_s=request_s)
    first, second = (fleet(load, machine, count, seed=seed) for _ in range(2))
    assert Fate.NOT_SENT not in set(first.fate)
    np.testing.assert_array_equal(first.latency_s, second.latency_s)


@settings(max_examples=25, deadline=None)
@given(rate=st.floats(5.0, 3000.0), seed=st.integers(0, 2**32 - 1), request_s=st.sampled_from([0.0, 0.0007]))
def test_one_replica_is_the_simulator(rate: float, seed: int, request_s: float) -> None:
    """Requests that are offered one by one end as those that are all known beforehand."""
    load, machine = workload(rate, seed, 0.5), Machine(noise=0.2, request_s=request_s, decision_s=0.0001)
    rng = np.random.default_rng([seed, 0])
    alone = simulate(load, FAMILY, SAMPLES, policy_named("slack-fraction"), machine, rng, Limits(), 1.12).results
    one = fleet(load, machine, 1, seed=seed)
    np.testing.assert_array_equal(alone.latency_s, one.latency_s)
    np.testing.assert_array_equal(alone.variant, one.variant)


def test_three_replicas_serve_three_times_the_load_at_least_as_well() -> None:
    """A fleet that shares its queues' lengths is no worse than one replica with a third of the load."""
    machine = Machine(noise=0.2)
    means = []
    for count, rate in ((1, 350.0), (3, 1050.0)):
        loads = [workload(rate, seed) for seed in range(3)]
        scores = [score(load, SAMPLES.label, fleet(load, machine, count)) for load in loads]
        means.append(np.mean([one.effective_accuracy for one in scores]))
    one, three = means
    assert one <= three + 0.005


@pytest.mark.parametrize("count", [2, 5])
def test_more_replicas_than_requests(count: int) -> None:
    """Replicas that get nothing harm nothing."""
    assert {Fate.ANSWERED} == set(fleet(at(0.5), EXACT, count).fate)
