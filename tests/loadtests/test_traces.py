"""Arrivals, SLO mixes and workloads: seeded, sorted, of the asked rate, and the same after a round trip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.load import Load
from loadtests.traces import PROCESSES, Shape, TraceError, arrivals, recorded
from loadtests.workload import SloMix, Workload

SHAPES = st.builds(Shape, cv2=st.floats(0.1, 8.0), peak_ratio=st.floats(0.5, 20.0), period_s=st.floats(0.05, 5.0))
SEEDS = st.integers(0, 2**32 - 1)


@given(st.sampled_from(sorted(PROCESSES)), st.floats(0.1, 2000.0), st.floats(0.01, 3.0), SHAPES, SEEDS)
def test_arrivals_ascend_within_the_duration(
    process: str, rate: float, duration_s: float, shape: Shape, seed: int
) -> None:
    """Whatever is asked, arrivals are sorted and lie in [0, duration)."""
    times_s = arrivals(process, rate, duration_s, shape, np.random.default_rng(seed))
    assert times_s.tolist() == sorted(times_s.tolist())
    assert all(0.0 <= time_s < duration_s for time_s in times_s.tolist())


@given(st.sampled_from(sorted(PROCESSES)), SEEDS)
def test_the_same_seed_gives_the_same_arrivals(process: str, seed: int) -> None:
    """Arrivals depend on nothing but the arguments and the random source."""
    first, second = (arrivals(process, 50.0, 2.0, Shape(), np.random.default_rng(seed)) for _ in range(2))
    assert first.tolist() == second.tolist()


@settings(max_examples=25)
@given(st.sampled_from(sorted(PROCESSES)), SEEDS)
def test_the_mean_rate_is_the_one_asked_for(process: str, seed: int) -> None:
    """Counts lie within six standard deviations of rate x duration, with gamma's variance for all."""
    times_s = arrivals(process, 200.0, 100.0, Shape(cv2=4.0), np.random.default_rng(seed))
    assert abs(len(times_s) - 20_000) < 6 * np.sqrt(4.0 * 20_000)


def test_gamma_gaps_have_the_variability_asked_for() -> None:
    """The squared coefficient of variation of the gaps is the parameter."""
    gaps_s = np.diff(arrivals("gamma", 100.0, 2000.0, Shape(cv2=4.0), np.random.default_rng(0)))
    assert pytest.approx(4.0, rel=0.05) == gaps_s.var() / gaps_s.mean() ** 2


def test_on_off_alternates_between_two_rates() -> None:
    """The second half of each period carries `peak_ratio` times the first half's arrivals."""
    times_s = arrivals("onoff", 100.0, 1000.0, Shape(peak_ratio=9.0, period_s=2.0), np.random.default_rng(0))
    high = (times_s % 2.0 >= 1.0).sum()
    assert pytest.approx(9.0, rel=0.05) == high / (len(times_s) - high)


def test_a_ramp_climbs_evenly() -> None:
    """With three times the rate at the end, the second half carries 5/8 of the arrivals."""
    times_s = arrivals("ramp", 100.0, 1000.0, Shape(peak_ratio=3.0), np.random.default_rng(0))
    assert pytest.approx(0.625, abs=0.01) == (times_s >= 500.0).mean()


def test_a_day_is_busiest_at_noon() -> None:
    """The middle third carries most arrivals, and a spike stands out from the minutes around it."""
    times_s = arrivals("diurnal", 1000.0, 30.0, Shape(peak_ratio=5.0), np.random.default_rng(0))
    thirds = np.histogram(times_s, bins=3, range=(0.0, 30.0))[0]
    assert thirds[1] > 1.5 * max(thirds[0], thirds[2])
    tenths = np.histogram(times_s, bins=300, range=(0.0, 30.0))[0]
    assert max(abs(np.diff(tenths))) > 6.0 * np.sqrt(tenths.mean())


def test_a_surge_changes_the_rate_within_its_climb() -> None:
    """Before it and after it, the rate is even, and twice as high after it."""
    times_s = arrivals("surge", 150.0, 400.0, Shape(peak_ratio=2.0), np.random.default_rng(0))
    before, after = (times_s < 199.9).sum(), (times_s >= 200.1).sum()
    assert pytest.approx(2.0, rel=0.05) == after / before
    assert pytest.approx(100.0, rel=0.03) == before / 199.9


@pytest.mark.parametrize(
    ("process", "rate", "duration_s", "named"),
    [
        ("weibull", 1.0, 1.0, "process"),
        ("poisson", 0.0, 1.0, "rate"),
        ("poisson", float("nan"), 1.0, "rate"),
        ("poisson", 1.0, -1.0, "duration"),
    ],
)
def test_arguments_out_of_range_are_named(process: str, rate: float, duration_s: float, named: str) -> None:
    """The message starts with the argument at fault."""
    with pytest.raises(TraceError, match=f"^{named}: expected"):
        arrivals(process, rate, duration_s, Shape(), np.random.default_rng(0))


@pytest.mark.parametrize(
    "content",
    [
        "time,what\n10,a\n11,b\n14,c\n",
        "14\n10\n11\n",
        "2026-01-01T00:00:10Z\n2026-01-01T00:00:11Z\n2026-01-01T00:00:14Z\n",
    ],
)
def test_recorded_traces_start_at_zero_and_keep_their_gaps(tmp_path: Path, content: str) -> None:
    """Headings, order and notation of time make no difference."""
    path = tmp_path / "trace.csv"
    path.write_text(content)
    assert [0.0, 1.0, 4.0] == recorded(path).tolist()


def test_recorded_traces_are_rescaled_and_cut(tmp_path: Path) -> None:
    """Three arrivals in four seconds at 1 per second take two, of which the first 1.5 are kept."""
    path = tmp_path / "trace.csv"
    path.write_text("10\n11\n14\n")
    assert [0.0, 0.5, 2.0] == recorded(path, rate=1.0).tolist()
    assert [0.0, 0.5] == recorded(path, rate=1.0, duration_s=1.5).tolist()


@pytest.mark.parametrize("content", ["", "5\n", "5\n5\n", "5\n6\nsoon\n", "inf\n1\n2\n3\nnan\n"])
def test_useless_recordings_are_refused_by_file(tmp_path: Path, content: str) -> None:
    """The message names the file."""
    path = tmp_path / "trace.csv"
    path.write_text(content)
    with pytest.raises(TraceError, match=r"trace\.csv: "):
        recorded(path)


def test_a_mix_is_read_from_milliseconds_and_weights() -> None:
    """Weights are normalised, a missing one is 1, and the mix is in ascending order."""
    assert SloMix((0.05, 0.2), (0.75, 0.25)) == SloMix.parse("200,50:3")


@pytest.mark.parametrize("text", ["", "fast", "50:", "50:0", "-50:1", "50:1,nan:1", "inf:1", "50:1:2"])
def test_malformed_mixes_are_refused(text: str) -> None:
    """Nothing but positive finite numbers passes; an empty weight counts as none given."""
    if text == "50:":
        assert SloMix((0.05,), (1.0,)) == SloMix.parse(text)
    else:
        with pytest.raises(TraceError, match=r"^slo-mix: expected"):
            SloMix.parse(text)


@given(SEEDS, st.integers(1, 500))
def test_a_workload_draws_from_its_mix_and_samples(seed: int, samples: int) -> None:
    """SLOs come from the mix, samples from the range, and the same seed draws the same."""
    mix = SloMix.parse("50:0.7,200:0.3")
    first, second = (
        Workload.draw(np.linspace(0.0, 1.0, 50), mix, samples, np.random.default_rng(seed)) for _ in range(2)
    )
    assert set(first.slo_s.tolist()) <= set(mix.slo_s)
    assert 0 <= first.sample.min() <= first.sample.max() < samples
    assert (first.slo_s.tolist(), first.sample.tolist()) == (second.slo_s.tolist(), second.sample.tolist())


def test_a_saved_workload_is_the_same_when_loaded(tmp_path: Path) -> None:
    """What one generator sends, another one can replay to the last bit."""
    rng = np.random.default_rng(1)
    drawn = Workload.draw(arrivals("gamma", 99.0, 3.0, Shape(), rng), SloMix.parse("7,9"), 13, rng, "gamma 99/s")
    drawn.save(tmp_path / "w.npz")
    loaded = Workload.load(tmp_path / "w.npz")
    for name in ("arrival_s", "slo_s", "sample"):
        assert getattr(drawn, name).tolist() == getattr(loaded, name).tolist()
    assert drawn.description == loaded.description


def test_a_damaged_workload_is_refused_by_file(tmp_path: Path) -> None:
    """Neither a truncated archive nor one of other arrays gives a workload."""
    path = tmp_path / "w.npz"
    path.write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(TraceError, match=r"w\.npz: cannot be read"):
        Workload.load(path)
    np.savez(path, arrival_s=np.zeros(1))
    with pytest.raises(TraceError, match=r"w\.npz: has no array"):
        Workload.load(path)


@pytest.mark.parametrize(
    ("arrival_s", "slo_s", "sample"),
    [
        ([], [], []),
        ([1.0, 0.5], [1.0, 1.0], [0, 0]),
        ([0.0], [0.0], [0]),
        ([0.0], [1.0], [-1]),
        ([0.0], [1.0, 1.0], [0]),
    ],
)
def test_workloads_that_make_no_sense_are_refused(
    arrival_s: list[float], slo_s: list[float], sample: list[int]
) -> None:
    """Empty, unsorted, without SLO, without sample or of different lengths."""
    with pytest.raises(TraceError, match=r"^workload: "):
        Workload(np.array(arrival_s), np.array(slo_s), np.array(sample, dtype=np.int64))


def test_a_load_says_where_chance_has_drawn_another_rate() -> None:
    """So that nobody takes it for another load than the one that was asked for."""
    said = set()
    for seed in range(50):
        workload = Load(SloMix.parse("50"), 5.0, 50.0).draw(10, seed)
        came = f"{len(workload) / 5.0:.0f}"
        mean = "" if came == "50" else " (random, 50/s in the mean)"
        assert f"poisson, {came}/s for 5 s{mean}, SLO 50 ms" == workload.description
        said.add(mean)
    assert 2 == len(said)
