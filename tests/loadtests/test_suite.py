"""The suite: rates and SLOs follow the machine, the same seed draws the same, recordings fit in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loadtests.machine import Machine
from loadtests.simulator import simulate
from loadtests.suite import QUICK, SUITE, Trace, draw, measure, recorded_trace, traces_named
from loadtests.synthetic import synthetic
from loadtests.traces import TraceError
from loadtests.workload import Workload
from router.policies.fixed import Fixed

FAMILY, SAMPLES = synthetic()
YARDSTICKS = measure(FAMILY, SAMPLES, Machine())


def test_names_are_unique_and_suites_nest() -> None:
    """Every trace has a name of its own, and the shorter suites are parts of the whole."""
    names = [trace.name for trace in SUITE]
    assert len(names) == len(set(names))
    assert set(QUICK) <= set(names)
    assert SUITE == traces_named(["all"])
    assert 10 <= len(traces_named(["live"])) <= 13


def test_an_unknown_trace_is_named() -> None:
    """So are the ones that exist."""
    with pytest.raises(
        TraceError, match=r"^traces: expected all, live, quick or one of poisson middle 0\.3.*'sawtooth'"
    ):
        traces_named(["sawtooth"])


def test_capacity_is_what_a_saturated_machine_answers() -> None:
    """With far more requests than it can take and no deadline in reach, goodput is the yardstick, for each variant."""
    machine = Machine(noise=0.0, slowdown=1.2, batch_s=0.0005)
    yardsticks = measure(FAMILY, SAMPLES, machine)
    count = 2000
    flood = Workload(np.linspace(0.0, 0.1, count), np.full(count, 1e3), np.zeros(count, dtype=np.int64))
    for per_s, variant in ((yardsticks.per_s["fastest"], "v0"), (yardsticks.per_s["best"], "v4")):
        simulation = simulate(flood, FAMILY, SAMPLES, Fixed(variant), machine, np.random.default_rng(0))
        saturated_per_s = count / float((flood.arrival_s + simulation.results.latency_s).max())
        # Of the best variant only batches within half an SLO count, so that the flood is answered faster.
        assert 0.75 * saturated_per_s < per_s < 1.01 * saturated_per_s
        assert variant != "v0" or pytest.approx(saturated_per_s, rel=0.01) == per_s


def test_http_lowers_the_capacity() -> None:
    """A request costs its share of the model and its own processor time."""
    slower = measure(FAMILY, SAMPLES, Machine(request_s=0.0005))
    assert pytest.approx(1 / YARDSTICKS.per_s["fastest"] + 0.0005) == 1 / slower.per_s["fastest"]


def test_rates_and_slos_follow_the_yardsticks() -> None:
    """Twice the capacity gives twice the rate; SLOs are multiples of the slow row."""
    trace = Trace("any", "poisson", 0.5, "middle", slos=((2.0, 0.5), (20.0, 0.5)))
    twice = replace(trace, load=1.0)
    one, two = (draw(each, YARDSTICKS, 20.0, 1, len(SAMPLES)) for each in (trace, twice))
    assert pytest.approx(2.0, rel=0.1) == len(two) / len(one)
    assert pytest.approx([2.0 * YARDSTICKS.slo_s, 20.0 * YARDSTICKS.slo_s], rel=1e-3) == sorted(set(one.slo_s.tolist()))


@pytest.mark.parametrize("trace", SUITE, ids=lambda trace: trace.name)
def test_a_trace_is_its_name_and_seed(trace: Trace) -> None:
    """The same seed draws the same workload, another one another, in every shape."""
    first, again, other = (draw(trace, YARDSTICKS, 1.0, seed, len(SAMPLES)) for seed in (1, 1, 2))
    assert first.arrival_s.tolist() == again.arrival_s.tolist()
    assert first.sample.tolist() == again.sample.tolist()
    assert first.arrival_s.tolist() != other.arrival_s.tolist()


def test_each_seed_plays_another_part_of_a_recording(tmp_path: Path) -> None:
    """Parts start at 0, last as long as asked and have the recording's rate, rescaled."""
    path = tmp_path / "service.csv"
    path.write_text("".join(f"{second}\n" for second in np.random.default_rng(0).uniform(0, 1000, 20_000)))
    trace = recorded_trace(path, 0.5)
    one, other = (draw(trace, YARDSTICKS, 2.0, seed, len(SAMPLES)) for seed in (1, 2))
    assert "service" == trace.name
    assert one.arrival_s.tolist() != other.arrival_s.tolist()
    assert 0.0 <= one.arrival_s[0] < one.arrival_s[-1] < 2.0
    assert pytest.approx(YARDSTICKS.per_s["fastest"], rel=0.15) == len(one)
