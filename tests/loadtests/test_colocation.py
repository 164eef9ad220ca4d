"""The colocation benchmark: its families and arrivals, the ways to share in virtual time, what it claims."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from loadtests import colocation
from loadtests.colocation_families import Burst, Mix, draw, members, shares
from loadtests.colocation_live import copies
from loadtests.colocation_report import goals, rows_of
from loadtests.colocation_runs import (
    CONTENDERS,
    NOISY,
    OURS,
    OVERLOAD,
    PLAIN,
    STATIC,
    ZIPF,
    Measured,
    Outcome,
    Task,
    run,
)
from loadtests.colocation_score import Shared
from loadtests.colocation_simulator import slower
from loadtests.machine import Machine
from loadtests.samples import read_samples
from router.latency import LatencyModel
from tests.service.families import sign_model, write_family
from variants.repository import Repository


def test_families_differ_and_stay_the_same() -> None:
    """Names, speeds, accuracies and SLOs vary; asked again, they are those of before."""
    first, again = members(8), members(8)
    assert [member.family for member in first] == [member.family for member in again]
    assert len({member.family.name for member in first}) == 8
    assert len({round(member.row_s, 6) for member in first}) > 2
    assert len({member.slo_s for member in first}) > 2


@pytest.mark.parametrize("zipf", [0.0, 1.0])
def test_the_load_is_what_the_mix_says(zipf: float) -> None:
    """Seconds at their cheapest of all requests, over those of all slots."""
    families, mix = members(4), Mix("a mix", 0.6, zipf=zipf)
    asked = draw(mix, families, 2, 20.0, 1)
    row_s = np.array([member.row_s for member in families])
    work_s = row_s[asked.member].sum()
    assert work_s / 40.0 == pytest.approx(0.6, rel=0.05)
    assert shares(mix, 4).sum() == pytest.approx(1.0)


def test_a_burst_comes_on_top_of_the_same_arrivals() -> None:
    """Without what it adds, a mix with a burst is the one without."""
    families, mix = members(4), Mix("a mix", 0.5, burst=Burst(2, 10.0, 0.5, 0.5))
    loud, quiet = draw(mix, families, 1, 2.0, 3), draw(mix.quiet, families, 1, 2.0, 3)
    assert loud.extra.sum() > 0
    assert set(loud.member[loud.extra].tolist()) == {2}
    # The bursting family draws its samples after its arrivals; who else comes when is the same.
    assert np.array_equal(loud.arrival_s[~loud.extra], quiet.arrival_s)
    assert np.array_equal(loud.member[~loud.extra], quiet.member)


def test_a_share_of_the_machine_is_a_slower_machine() -> None:
    """Everything takes as many times longer."""
    (member, *_) = members(1)
    plain, slowed = LatencyModel(member.family), LatencyModel(slower(member.family, 4.0))
    assert slowed.median_s(2, 8, 0) == pytest.approx(4.0 * plain.median_s(2, 8, 0))


def test_scores_count_families_alike() -> None:
    """Nine of ten requests of one family in time, one of two of the other."""
    member = np.array([0] * 10 + [1] * 2)
    met = np.array([True] * 9 + [False, True, False])
    scored = Shared.of(member, met, met, 3)
    assert scored.mean == pytest.approx(0.7)
    assert scored.least == 0.5
    assert scored.overall[0] == pytest.approx(10 / 12)
    assert scored.jain == pytest.approx((0.9 + 0.5) ** 2 / (2 * (0.81 + 0.25)))


@pytest.mark.parametrize("contender", CONTENDERS)
def test_every_way_to_share_answers(contender: str) -> None:
    """With little to do, all of them answer nearly everything."""
    outcome = run(Task(3, ZIPF, contender, 1, 0.5))
    assert outcome.requests > 100
    assert outcome.measured.attainment > (0.5 if contender == STATIC else 0.95)
    assert outcome.measured.effective <= outcome.measured.attainment


def test_a_loud_neighbour_is_quieter_with_fair_shares() -> None:
    """The same burst costs the others less attainment than without shares."""
    fair, plain = (run(Task(4, NOISY, contender, 1, 1.2)).measured.neighbours for contender in (OURS, PLAIN))
    assert fair is not None
    assert plain is not None
    assert plain < -0.01
    assert fair > 0.25 * plain


def test_overload_is_shared_more_evenly() -> None:
    """The family that fares worst fares better with shares, once it is known for a moment who asks for how much."""
    fair, plain = (run(Task(4, OVERLOAD, contender, 1, 1.6)).measured for contender in (OURS, PLAIN))
    assert fair.least > plain.least


def test_dozens_of_families_on_a_slow_machine_are_in_time() -> None:
    """Each has a row or two waiting, and together as much as there is time for: nobody's batch takes all of it."""
    machine = Machine(noise=0.12, batch_s=0.0003, slowdown=1.5)
    measured = run(Task(24, ZIPF, OURS, 1, 1.5), machine).measured
    assert measured.attainment > 0.98
    assert measured.least > 0.9


def test_an_unknown_way_to_share_is_named() -> None:
    """The message lists those that there are."""
    with pytest.raises(ValueError, match="static shares"):
        run(Task(3, ZIPF, "magic", 1, 0.2))


def outcome(contender: str, effective: float, least: float = 0.99, neighbours: float | None = None) -> Outcome:
    task = Task(4, NOISY if neighbours is not None else ZIPF, contender, 1, 1.0)
    return Outcome(task, 100, Measured(0.995, effective, 0.995, least, 1.0, 120.0, 200.0, neighbours))


def test_a_run_that_is_not_valid_does_not_count() -> None:
    """Means are of the others."""
    late = outcome(OURS, 0.1)._replace(valid=False)
    (row,) = rows_of([outcome(OURS, 0.85), late])
    assert (1, 0.85) == (row.seeds, row.means.effective)


def test_goals_are_judged() -> None:
    """A gain of 1.5 points, an even attainment, a decision of 120 us; a neighbour that costs 0.7 points is too loud."""
    found = goals(rows_of([outcome(OURS, 0.85), outcome(STATIC, 0.835), outcome(OURS, 0.8, neighbours=-0.007)]))
    assert [True, True, True, False, True] == [goal.met for goal in found]
    assert "+1.5" == found[1].found


def test_the_command_writes_what_it_found(tmp_path: Path) -> None:
    """Runs, goals, a table and a picture."""
    colocation.main(["--families", "2", "--seeds", "1", "--duration", "0.3", "--workers", "1", "--out", str(tmp_path)])
    written = json.loads((tmp_path / "colocation.json").read_bytes())
    assert len(written["runs"]) == 4 * len(CONTENDERS)
    assert (tmp_path / "colocation.png").stat().st_size > 1000
    assert "static shares" in (tmp_path / "colocation.md").read_text()


def test_copies_are_families_of_their_own(tmp_path: Path) -> None:
    """Whole revisions under other names, whose files are verified as ever."""
    models = tmp_path / "models"
    write_family(Repository(models), "sign", {"quick": (sign_model(), 0.8)})
    with copies(models, ["sign"], 3) as root:
        repository = Repository(root)
        assert ("sign-00", "sign-01", "sign-02") == repository.families()
        assert len(read_samples(repository.open("sign-01"))) > 0
    assert not root.exists()


def test_a_part_of_the_benchmark_does_not_take_the_place_of_the_whole() -> None:
    """What is published stays; where the caller names a folder, it is that."""
    parser = colocation._parser()
    parts = (["--mixes", "noisy neighbour"], ["--families", "4"], ["--seeds", "1"], ["--live", "--load", "0.5"])
    assert {colocation.PARTS} == {colocation.folder_of(parser.parse_args(part), parser) for part in parts}
    assert colocation.RESULTS == colocation.folder_of(parser.parse_args(["--live"]), parser)
    assert Path("there") == colocation.folder_of(parser.parse_args(["--seeds", "1", "--out", "there"]), parser)
