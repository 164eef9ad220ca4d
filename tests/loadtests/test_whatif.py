"""What-if questions: replicas share the load, searches find the fewest, pictures are drawn, nothing is lost."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import orjson
import pytest

from loadtests.load import Load
from loadtests.machine import Machine
from loadtests.outcomes import Fate
from loadtests.simulator import simulate
from loadtests.traces import Shape, TraceError
from loadtests.whatif import (
    Forecast,
    Setup,
    fewest,
    predict,
    read_machine,
    usual_machine,
)
from loadtests.whatif_plot import draw_forecasts
from loadtests.workload import SloMix, Workload
from router.limits import Limits
from router.policies import policy_named
from tests.scripted import FAMILY, SAMPLES

EXACT = Machine(noise=0.0)
MIX = SloMix.parse("40:0.5,120:0.5")


def setup(policy: str = "slack-fraction", machine: Machine = EXACT) -> Setup:
    return Setup(FAMILY, SAMPLES, policy, machine, 1.12, Limits())


def workloads(rate: float, seeds: int = 2, duration_s: float = 1.0) -> list[Workload]:
    return [Load(MIX, duration_s, rate).draw(len(SAMPLES), seed) for seed in range(seeds)]


def nothing() -> None:
    """Show no progress."""


def test_one_replica_is_the_simulator() -> None:
    """Without replicas and HTTP, a forecast is exactly what one simulation of the same seeds gives."""
    (load,) = workloads(300.0, seeds=1)
    alone = simulate(
        load, FAMILY, SAMPLES, policy_named("slack-fraction"), EXACT, np.random.default_rng([0, 0]), Limits(), 1.12
    )
    found = predict(setup(), [load], 1, nothing)
    for column in dataclasses.fields(alone.results):
        np.testing.assert_array_equal(getattr(alone.results, column.name), getattr(found.first, column.name))


def test_every_request_has_a_result_whatever_the_replicas() -> None:
    """After merging, no request is left as not sent."""
    for replicas in (1, 3, 7):
        found = predict(setup(), workloads(2000.0, 1, 0.3), replicas, nothing)
        assert Fate.NOT_SENT not in set(found.first.fate)


def test_more_replicas_serve_an_overload_better() -> None:
    """Far over the capacity of one replica, three refuse less and answer more accurately."""
    one, three = (predict(setup(), workloads(2500.0), replicas, nothing) for replicas in (1, 3))
    assert one.attainment.mean < 0.99 <= three.attainment.mean
    assert one.effective_accuracy.mean < three.effective_accuracy.mean
    assert one.refused.mean > 0.5
    assert three.refused.mean < 0.001


def test_the_search_finds_the_fewest() -> None:
    """As many as it says are enough, and one less is not."""
    loads = workloads(6000.0, seeds=1)
    tried = fewest(setup(), loads, 0.99, nothing)
    enough = next(forecast.replicas for forecast in tried if forecast.attainment.mean >= 0.99)
    assert enough > 2
    one_less, as_many = (predict(setup(), loads, count, nothing).attainment.mean for count in (enough - 1, enough))
    assert one_less < 0.99 <= as_many
    assert sorted(forecast.replicas for forecast in tried) == [forecast.replicas for forecast in tried]


def test_a_hopeless_search_ends() -> None:
    """An SLO that no variant can meet is not met by the most replicas either."""
    load = Load(SloMix.parse("0.1"), 0.2, 100.0).draw(len(SAMPLES), 0)
    tried = fewest(setup(), [load], 0.5, nothing, most=6)
    assert [1, 2, 4, 6] == [forecast.replicas for forecast in tried]
    assert 0.0 == tried[-1].attainment.mean


def test_the_event_loop_bounds_a_replica() -> None:
    """More requests than HTTP can take in wait for the event loop, however quick the models are."""
    slow = dataclasses.replace(EXACT, slots=64, request_s=0.002)
    assert 0.5 > predict(setup(machine=slow), workloads(2000.0), 1, nothing).attainment.mean
    assert 0.95 < predict(setup(machine=slow), workloads(2000.0), 8, nothing).attainment.mean


def test_shares_add_up() -> None:
    """In time, late and refused are all arrivals; the variants' shares are all of the answered."""
    found = predict(setup("fixed:large"), workloads(300.0), 1, nothing)
    assert pytest.approx(1.0) == found.attainment.mean + found.late.mean + found.refused.mean
    assert pytest.approx(1.0) == sum(found.answers.values())
    assert found.attainment.low <= found.attainment.mean <= found.attainment.high


def test_forecasts_are_repeatable_and_become_json() -> None:
    """The same question has the same answer, without single requests in its JSON."""
    first, second = (predict(setup(), workloads(500.0), 2, nothing) for _ in range(2))
    assert repr(first) == repr(second)
    assert {"mean", "low", "high"} == set(orjson.loads(orjson.dumps(first.values()))["attainment"])
    assert "first" not in first.values()


def test_a_recording_may_be_rescaled(tmp_path: Path) -> None:
    """Without a rate its own times count, with one they are stretched."""
    recording = tmp_path / "calls.csv"
    recording.write_text("seconds\n" + "\n".join(str(second) for second in range(11)))
    load = Load(MIX, 100.0, trace=recording)
    assert 10.0 == load.draw(len(SAMPLES), 0).duration_s
    assert pytest.approx(2.0) == dataclasses.replace(load, rate=5.0).draw(len(SAMPLES), 0).duration_s
    assert load.draw(len(SAMPLES), 0).description.startswith("calls.csv, ")


def test_loads_out_of_range_are_named() -> None:
    """One line says what is wrong with a load."""
    with pytest.raises(TraceError, match="rate: expected a positive number, got 0"):
        Load(MIX, 1.0).draw(4, 0)
    with pytest.raises(TraceError, match="more than 2,000,000 requests"):
        Load(MIX, 1e6, 1e6).draw(4, 0)
    with pytest.raises(TraceError, match="process: expected one of"):
        Load(MIX, 1.0, 1.0, "flood", Shape()).draw(4, 0)


def test_a_calibrated_machine_is_read(tmp_path: Path) -> None:
    """Only the slots are asked for anew; a file of something else is named."""
    path = tmp_path / "results.json"
    path.write_bytes(orjson.dumps({"simulated_machine": dataclasses.asdict(Machine(1, noise=0.3, slowdown=1.2))}))
    assert Machine(4, noise=0.3, slowdown=1.2) == read_machine(path, 4)
    path.write_text("{}")
    with pytest.raises(TraceError, match=r"results\.json: cannot be read as results with a simulated_machine"):
        read_machine(path, 1)
    assert 3 == usual_machine(FAMILY, 3).slots


@pytest.mark.parametrize("suffix", [".png", ".svg"])
@pytest.mark.parametrize("replicas", [[1], [1, 2]])
def test_pictures_are_drawn(tmp_path: Path, suffix: str, replicas: list[int]) -> None:
    """One count or several, as a bitmap or as a drawing."""
    loads = workloads(1500.0, seeds=1, duration_s=0.5)
    forecasts = [predict(setup(), loads, count, nothing) for count in replicas]
    path = tmp_path / f"forecast{suffix}"
    draw_forecasts(forecasts, forecasts[0], loads[0], ["small", "large"], path)
    assert path.stat().st_size > 1000


def test_a_picture_of_a_single_request(tmp_path: Path) -> None:
    """Nothing is too little to be drawn; another format is refused by name."""
    load = Workload(np.array([0.0]), np.array([0.001]), np.array([0]), "one")
    forecast: Forecast = predict(setup(), [load], 1, nothing)
    draw_forecasts([forecast], forecast, load, ["small", "large"], tmp_path / "one.png")
    with pytest.raises(ValueError, match=r"expected \.png or \.svg"):
        draw_forecasts([forecast], forecast, load, ["small", "large"], tmp_path / "one.gif")
