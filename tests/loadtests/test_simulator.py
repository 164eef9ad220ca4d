"""The virtual clock: every request ends once, the same seed gives the same run, the scheduler alone decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.breaking import Breaks
from loadtests.machine import Machine
from loadtests.outcomes import Fate
from loadtests.scoring import score
from loadtests.simulator import Simulation, simulate
from loadtests.traces import Shape, arrivals
from loadtests.workload import SloMix, Workload
from router.latency import table
from router.limits import Limits
from router.policies import policy_named
from router.policies.fixed import Fixed
from router.quarantine import FAULTS
from router.words import Escalation, Outcome, Reason
from tests.scripted import FAMILY, SAMPLES

EXACT = Machine(noise=0.0)


def workload(rate: float, seed: int, mix: str = "40:0.5,120:0.5", duration_s: float = 2.0) -> Workload:
    rng = np.random.default_rng(seed)
    arrival_s = np.append(0.0, arrivals("poisson", rate, duration_s, Shape(), rng))
    return Workload.draw(arrival_s, SloMix.parse(mix), len(SAMPLES), rng)


def run(
    load: Workload, policy: str = "slack-fraction", machine: Machine = EXACT, seed: int = 0, ahead: float = 0.0
) -> Simulation:
    limits, rng = Limits(ahead=ahead), np.random.default_rng(seed)
    return simulate(load, FAMILY, SAMPLES, policy_named(policy), machine, rng, limits)


@settings(max_examples=40, deadline=None)
@given(
    rate=st.floats(5.0, 1500.0),
    seed=st.integers(0, 2**32 - 1),
    slots=st.integers(1, 3),
    policy=st.sampled_from(["slack-fraction", "fastest", "most-accurate", "fixed:large"]),
    stragglers=st.sampled_from([0.0, 0.2]),
    ahead=st.sampled_from([0.0, 0.7]),
)
def test_every_request_has_one_record(
    rate: float, seed: int, slots: int, policy: str, stragglers: float, ahead: float
) -> None:
    """Whatever the load, the machine and the policy, each request ends exactly once and no batch is lost."""
    load = workload(rate, seed, duration_s=0.5)
    simulation = run(load, policy, Machine(slots, noise=0.3, stragglers=stragglers), seed, ahead)
    assert list(range(len(load))) == sorted(record.request_id for record in simulation.records)
    answered = sum(len(dispatch.items) for dispatch in simulation.dispatches)
    assert answered == int((simulation.results.fate == Fate.ANSWERED).sum())


def test_the_same_seed_gives_the_same_run() -> None:
    """A simulation can be repeated to the last record."""
    load, machine = workload(300.0, 1), Machine(2, noise=0.2, stragglers=0.05)
    assert run(load, machine=machine, seed=3).records == run(load, machine=machine, seed=3).records


def test_another_seed_gives_another_run() -> None:
    """Noise comes from the given random source."""
    load, machine = workload(300.0, 1), Machine(noise=0.2)
    assert run(load, machine=machine, seed=3).records != run(load, machine=machine, seed=4).records


def test_a_lone_request_takes_the_profiled_time() -> None:
    """Without noise or overhead, latency is the profiled median."""
    load = Workload(np.array([1.0]), np.array([0.1]), np.array([0]))
    assert pytest.approx(0.008) == run(load, "fixed:large").results.latency_s[0]


def test_overhead_is_part_of_the_latency_but_not_of_the_schedulers_budget() -> None:
    """The sender waits for HTTP both ways; the scheduler's deadline counts from receipt, as it does live."""
    load = Workload(np.array([1.0]), np.array([0.1]), np.array([0]))
    simulation = run(load, "fixed:large", Machine(noise=0.0, inbound_s=0.002, outbound_s=0.001))
    assert pytest.approx(0.011) == simulation.results.latency_s[0]
    assert pytest.approx(1.002) == simulation.records[0].arrival_s
    assert pytest.approx(0.1) == simulation.records[0].slo_s


def test_answers_are_those_of_the_variant_that_answered() -> None:
    """The fourth sample is the one that only the large variant gets right."""
    load = Workload(np.linspace(0.0, 3.0, 4), np.full(4, 0.5), np.arange(4))
    assert 0.75 == score(load, SAMPLES.label, run(load, "fixed:small").results).effective_accuracy
    assert 1.00 == score(load, SAMPLES.label, run(load, "fixed:large").results).effective_accuracy


def test_an_adaptive_policy_beats_both_fixed_variants_where_the_load_changes() -> None:
    """Between the capacity of the small and of the large variant, choosing per request wins."""
    rng = np.random.default_rng(5)
    shape = Shape(peak_ratio=10.0, period_s=1.0)
    load = Workload.draw(arrivals("onoff", 180.0, 20.0, shape, rng), SloMix.parse("80"), len(SAMPLES), rng)
    scores = {
        policy: score(load, SAMPLES.label, run(load, policy).results).effective_accuracy
        for policy in ("slack-fraction", "fixed:small", "fixed:large")
    }
    assert "slack-fraction" == max(scores, key=lambda policy: scores[policy]), scores


def test_a_policy_that_is_overrun_refuses_or_is_late_but_ends() -> None:
    """Ten times the capacity still gives each request its record, and attainment falls."""
    load = workload(2000.0, 2, duration_s=1.0)
    simulation = simulate(load, FAMILY, SAMPLES, Fixed("large"), EXACT, np.random.default_rng(0))
    judged = score(load, SAMPLES.label, simulation.results)
    assert len(load) == len(simulation.records)
    assert judged.attainment < 0.3
    assert Reason.FIXED in {record.reason for record in simulation.records}


def even(count: int, gap_s: float, slo_s: float = 0.5) -> Workload:
    return Workload(
        np.linspace(0.0, gap_s * (count - 1), count), np.full(count, slo_s), np.zeros(count, dtype=np.int64)
    )


def test_requests_make_the_batch_that_runs_longer() -> None:
    """Half of a request's processor time falls into the batch that runs when it arrives."""
    machine = Machine(noise=0.0, request_s=0.002)
    load = Workload(np.array([0.0, 0.002, 0.004]), np.full(3, 0.5), np.zeros(3, dtype=np.int64))
    first = run(load, "fixed:large", machine).records[0]
    assert pytest.approx(0.008 + 2 * 0.001) == first.finished_s


def test_a_change_of_models_costs_as_many_single_rows() -> None:
    """The slot's first batch and each of another variant than the last one, not one after the same."""
    load, machine = even(4, 0.1), Machine(noise=0.0, setup=3.0)
    same = run(load, "fixed:large", machine)
    assert pytest.approx([4 * 0.008, 0.008, 0.008, 0.008]) == same.results.latency_s
    by_turns = Workload(load.arrival_s, np.array([0.2, 0.005, 0.2, 0.005]), load.sample)
    taken = run(by_turns, "slack-fraction", Machine(noise=0.0, setup=0.5))
    assert ["large", "small", "large", "small"] == [dispatch.variant for dispatch in taken.dispatches]
    assert pytest.approx([1.5 * 0.008, 1.5 * 0.001] * 2) == taken.results.latency_s


def test_the_event_loop_at_most_doubles_a_batch() -> None:
    """Two threads share a core: however many requests arrive, the model keeps half of it."""
    load = even(40, 0.0005)
    first = run(load, "fixed:large", Machine(noise=0.0, request_s=0.002)).records[0]
    assert pytest.approx(0.016) == first.finished_s


def test_an_overrun_event_loop_lets_requests_wait_outside() -> None:
    """The scheduler sees a request when the loop gets to it; its deadline counts from when it came."""
    simulation = run(even(40, 0.0005), "fixed:small", Machine(noise=0.0, request_s=0.002))
    records = sorted(simulation.records, key=lambda record: record.request_id)
    assert pytest.approx([0.0005] * 39) == np.diff([record.arrival_s for record in records])
    assert records[-1].total_s > 0.01


@pytest.mark.parametrize(("refused_s", "begins_s"), [(None, 0.006), (0.0002, 0.0006)])
def test_refusals_may_take_less_of_the_event_loop(refused_s: float | None, begins_s: float) -> None:
    """Three hopeless requests come before one that is answered, which the loop gets to when it has refused them."""
    load = Workload(np.zeros(4), np.array([1e-6, 1e-6, 1e-6, 0.5]), np.zeros(4, dtype=np.int64))
    simulation = run(load, "fixed:small", Machine(noise=0.0, request_s=0.002, refused_s=refused_s))
    assert pytest.approx(begins_s) == simulation.dispatches[0].started_s


def test_what_a_batch_costs_beside_the_model_is_learnt_apart() -> None:
    """The slot is busy for longer, and what the router corrects is its overhead, not its model."""
    simulation = run(even(50, 0.1), "fixed:large", Machine(noise=0.0, batch_s=0.001))
    assert pytest.approx(0.009) == simulation.results.latency_s[0]
    planned_s = simulation.dispatches[-1].predicted_s - simulation.dispatches[-1].predicted_run_s
    assert pytest.approx(0.001, rel=0.1) == planned_s
    assert pytest.approx(0.008, rel=0.12) == simulation.dispatches[-1].predicted_run_s


def test_what_is_decided_ahead_costs_its_slot_nothing_beside_the_model() -> None:
    """Batches of the quick model in overload, a millisecond to hand over: more than a tenth more answers."""
    load, machine = workload(4000.0, 1, "40:1"), Machine(noise=0.0, batch_s=0.001)
    waits, ahead = [run(load, "fixed:small", machine, ahead=share) for share in (0.0, 1.0)]
    answered = [int((simulation.results.fate == Fate.ANSWERED).sum()) for simulation in (waits, ahead)]
    assert answered[1] > 1.1 * answered[0]
    first, *others = ahead.dispatches
    assert not first.ahead
    assert sum(dispatch.ahead for dispatch in others) > 0.9 * len(others)


def test_a_neighbour_comes_and_goes() -> None:
    """In the second half of each period everything takes the given times as long; work across a change, in parts."""
    machine = Machine(hog_factor=3.0, hog_period_s=2.0)
    ends = [machine.ends_s(start_s, 0.5) for start_s in (0.2, 1.2, 0.75, 1.75)]
    assert pytest.approx([0.7, 2.0 + 0.5 - 0.8 / 3.0, 1.0 + 0.25 * 3.0, 2.0 + 0.5 - 0.25 / 3.0]) == ends
    assert 0.7 == Machine().ends_s(0.2, 0.5)


def test_the_machine_keeps_to_its_own_profile() -> None:
    """Where the scheduler's profile is wrong, batches take what they really take."""
    latency = table((1, 8), (0.02, 0.08), (0.02, 0.08))
    slow = replace(FAMILY, variants=tuple(replace(variant, latency=latency) for variant in FAMILY.variants))
    load = even(1, 1.0)
    simulation = simulate(load, FAMILY, SAMPLES, Fixed("large"), EXACT, np.random.default_rng(0), truth=slow)
    assert pytest.approx(0.02) == simulation.results.latency_s[0]


def test_ways_to_and_fro_are_drawn_from_their_quantiles() -> None:
    """Half of the requests take the shorter way, half the longer one, and none is back before it was there."""
    machine = Machine(noise=0.0, inbound_s=0.001, ways_s=(0.002, 0.002, 0.010, 0.010))
    load = even(400, 0.05)
    ways_s = run(load, "fixed:large", machine).results.latency_s - 0.008
    assert pytest.approx((0.002, 0.010)) == (ways_s.min(), ways_s.max())
    assert 150 < (ways_s < 0.006).sum() < 250


@pytest.mark.parametrize("reason", sorted(FAULTS))
@pytest.mark.parametrize("policy", ["most-accurate", "casc", "slack-fraction"])
def test_a_variant_that_breaks_for_a_while_costs_its_family_nothing_but_quality(reason: Reason, policy: str) -> None:
    """For a second `large` breaks under whatever it is given: every request has its outcome, and it comes back."""
    breaks = Breaks({"large": (reason, 1.0, 2.0)})
    load = workload(20.0, 5, mix="1000:1", duration_s=8.0)
    limits, rng = Limits(ahead=0.7, hang_s=0.1), np.random.default_rng(1)
    ended = simulate(load, FAMILY, SAMPLES, policy_named(policy), Machine(2), rng, limits, breaks=breaks)
    assert list(range(len(load))) == sorted(record.request_id for record in ended.records)
    assert {Outcome.SERVED} == {record.outcome for record in ended.records}
    assert any(record.retried or record.escalation is Escalation.FAILED for record in ended.records)
    begun = [dispatch.started_s for dispatch in ended.dispatches if dispatch.variant == "large"]
    assert len([at_s for at_s in begun if 1.0 <= at_s < 2.0]) <= 2 * 2, "one of each slot, and one decided ahead"
    assert max(begun) > 6.0, "it is back"


def test_batches_take_what_the_slots_device_takes() -> None:
    """The second of two rows runs on the narrow device, which needs three times as long."""
    slow = tuple(
        replace(
            one, elsewhere=(("narrow", table((1, 8), *(tuple(3 * s for s in row) for row in one.latency.median_s))),)
        )
        for one in FAMILY.variants
    )
    machine = Machine(2, noise=0.0, devices=(("wide", 2), ("narrow", 1)))
    load = Workload(np.zeros(2), np.full(2, 0.5), np.zeros(2, dtype=np.int64))
    rule, rng = policy_named("fixed:large"), np.random.default_rng(0)
    ran = simulate(load, replace(FAMILY, variants=slow, max_batch=1), SAMPLES, rule, machine, rng)
    assert ["wide", "narrow"] == [record.device for record in ran.records]
    assert pytest.approx([0.008, 0.024]) == [record.compute_s for record in ran.records]


def test_neighbours_slow_each_other_down_for_as_long_as_they_run() -> None:
    """Two batches of 8 ms side by side, each half as fast beside the other, both take 16; one alone takes its 8."""
    machine = Machine(2, noise=0.0, contention=1.0)
    family = replace(FAMILY, max_batch=1)
    for rows, expected_s in ((2, [0.016, 0.016]), (1, [0.008])):
        load = Workload(np.zeros(rows), np.full(rows, 0.5), np.zeros(rows, dtype=np.int64))
        ran = simulate(load, family, SAMPLES, policy_named("fixed:large"), machine, np.random.default_rng(0))
        assert pytest.approx(expected_s) == [record.compute_s for record in ran.records]


def test_a_machine_has_a_device_for_each_slot() -> None:
    """Anything else is a slip of whoever describes it."""
    with pytest.raises(ValueError, match="devices: 1 of 2 slots"):
        Machine(2, devices=(("wide", 2),))
