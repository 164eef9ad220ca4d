"""The simulated outer loop: what its Prometheus sees, how late, and that lies stay within bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtests import outer_loop
from loadtests.calibration import TYPICAL
from loadtests.outer_loop import ARMS, OFF, Arm, Bench, Day, Run, simulated, table
from loadtests.outer_loop_played import Cadence, PlayedPrometheus, Truth
from loadtests.suite import Trace, measure
from loadtests.synthetic import synthetic
from router.contract import Record
from router.outer_loop import FamilyReading, Rule
from router.words import Outcome, Reason

STRAGGLING = Day("stragglers", Trace("stragglers", "poisson", 0.8, "middle"), 0.05)


@pytest.fixture(scope="module")
def bench() -> Bench:
    family, samples = synthetic()
    return Bench(family, samples, TYPICAL, measure(family, samples, TYPICAL), 6.0)


def record(*, met: bool, quality: float = 0.9) -> Record:
    reason = Reason.MOST_ACCURATE if met else Reason.DEADLINE_INFEASIBLE
    variant = "v" if met else ""
    outcome = Outcome.SERVED if met else Outcome.REJECTED_INFEASIBLE
    ended = (1, "f", "1", variant, (variant,), (variant,), outcome, reason, 1, 0.0, 0.1, 0.0, 0.1, 0.2, met)
    return Record(*ended, quality if met else 0.0, 1, "default", "default", 0.1, 0.1)


def test_the_played_server_knows_what_it_has_scraped() -> None:
    """Not what has happened since, and of the short window only what happened in it."""
    played = PlayedPrometheus(Cadence(1.0, 1.0, 2.0, 100.0, 4.0), (0.5, 0.9), Truth.TRUE, 50.0)
    played.observe([record(met=False)] * 10)
    assert FamilyReading(None, None, None) == played.reading(0.5)
    for now in (1.0, 2.0, 3.0):
        played.scrape(now)
    played.observe([record(met=True, quality=0.7)] * 30)
    played.scrape(3.5)
    assert (None, 1.0, None) == played.reading(3.5)
    played.scrape(4.0)
    found = played.reading(4.0)
    assert found is not None
    assert [0.0, 0.25, pytest.approx(0.5)] == list(found)


def test_a_disturbed_day_is_answered_with_caution(bench: Bench) -> None:
    """The true Prometheus raises it within bounds, and more is in time than without an outer loop."""
    without, careful = (simulated(bench, STRAGGLING, arm, 0) for arm in ARMS[:2])
    assert 1.0 < careful.caution <= Rule().most
    assert careful.attainment > without.attainment


@pytest.mark.parametrize("truth", [Truth.ZERO, Truth.NAN])
def test_who_says_that_all_is_well_or_nothing_changes_nothing(bench: Bench, truth: Truth) -> None:
    """Every request ends as without an outer loop."""
    short = replace(bench, duration_s=2.0)
    without, lied = (simulated(short, STRAGGLING, arm, 0) for arm in (OFF, Arm(truth, truth)))
    assert (without.attainment, without.effective_accuracy, 1.0) == (
        lied.attainment,
        lied.effective_accuracy,
        lied.caution,
    )


def test_the_table_has_a_line_for_each_day_and_arm() -> None:
    """Differences are taken seed by seed."""
    runs = [Run("d", arm.name, seed, 0.9 + 0.01 * (arm is not OFF), 0.8, 1.0) for arm in ARMS for seed in (0, 1)]
    made = table(runs, ARMS)
    assert len(ARMS) == made.row_count
    assert ["+0.00 (+0.00 +0.00)", *["+1.00 (+1.00 +1.00)"] * 5] == list(made.columns[4].cells)


def test_the_command_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """A day that does not exist is told in one line."""
    with pytest.raises(SystemExit):
        outer_loop.main(["--family", "synthetic", "--days", "doomsday"])
    assert "--days: expected some of calm" in capsys.readouterr().out
