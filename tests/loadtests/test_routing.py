"""The routing benchmark: paired tables, goals, runs that are kept, and the command from end to end."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import orjson
import pytest

from loadtests.machine import Machine
from loadtests.outcomes import Fate, Results
from loadtests.revision import commit_of
from loadtests.routing import main
from loadtests.routing_goals import Goal, goals
from loadtests.routing_report import markdown
from loadtests.routing_robustness import (
    DISTURBANCES,
    HOG,
    SURGE,
    UNDISTURBED,
    losses,
    profile_factors,
    scaled,
    traces_of,
)
from loadtests.routing_runs import Book, BookError, Decisions, Key, Run, read_runs
from loadtests.routing_simulated import Bench, run_all, stopwatch
from loadtests.routing_table import BEST_STATIC, RunTable
from loadtests.suite import measure, traces_named
from loadtests.synthetic import synthetic
from router.policies import policy_named
from router.view import CascadePolicy

FAMILY, SAMPLES = synthetic()
MACHINE = Machine()
BENCH = Bench(FAMILY, SAMPLES, MACHINE, measure(FAMILY, SAMPLES, MACHINE), 1.0)


def run(policy: str, trace: str, accuracy: float, seed: int = 1, attainment: float = 1.0) -> Run:
    return Run(
        policy=policy,
        trace=trace,
        seed=seed,
        arrivals=1000,
        per_s=100.0,
        effective_accuracy=accuracy,
        attainment=attainment,
        accuracy=accuracy,
        goodput_per_s=100.0 * attainment,
        shed=1.0 - attainment,
        escalated=0.0,
        p50_s=0.01,
        p99_s=0.02,
        p999_s=math.nan,
        answers={"v0": 1.0},
    )


TRACES = ("poisson 0.6", "gamma CV2 4")


def test_best_static_is_chosen_trace_by_trace() -> None:
    """Each trace takes the variant that was best on it, which itself is not compared."""
    table = RunTable.of(
        [
            *(run("fixed:a", TRACES[0], 0.7, seed) for seed in (1, 2)),
            *(run("fixed:b", TRACES[0], 0.8, seed) for seed in (1, 2)),
            run("fixed:a", TRACES[1], 0.6),
            run("fixed:b", TRACES[1], 0.5),
            run("casc", TRACES[0], 0.9),
        ]
    )
    assert ("casc", BEST_STATIC) == table.policies
    assert [0.8, 0.6] == [table.mean(BEST_STATIC, trace) for trace in TRACES]


def test_differences_are_paired_by_trace_and_seed() -> None:
    """A seed that only one of both has does not count, and traces weigh the same."""
    table = RunTable.of(
        [
            run("casc", TRACES[0], 0.9, 1),
            run("casc", TRACES[0], 0.5, 2),
            run("casc", TRACES[1], 0.8, 1),
            run("infaas", TRACES[0], 0.8, 1),
            run("infaas", TRACES[1], 0.4, 1),
        ]
    )
    difference = table.difference("infaas", "casc")
    assert difference is not None
    assert pytest.approx(-0.25) == difference.mean
    assert 2 == difference.pairs


def test_overload_is_not_in_suite_means_and_invalid_runs_are_nowhere() -> None:
    """Goodput traces are judged by goodput; what the generator spoilt is no measurement."""
    spoilt = dataclasses.replace(run("casc", TRACES[1], 0.0), faults=("late",))
    table = RunTable.of([run("casc", TRACES[0], 0.9), run("casc", "overload 2", 0.4), spoilt])
    assert (TRACES[0],) == table.suite
    assert 0.9 == table.suite_mean("casc")


def test_goals_are_met_or_not_by_what_was_measured() -> None:
    """Every goal has its verdict, and the ones without runs say so."""
    runs = []
    for trace in TRACES:
        runs += [run("casc", trace, 0.85), run("slackfit", trace, 0.80), run("infaas:lazy", trace, 0.84)]
        runs += [run("fixed:v0", trace, 0.80), run("fastest", trace, 0.8, attainment=0.999)]
    runs.append(run("casc", "overload 2", 0.4, attainment=0.5))
    table = RunTable.of(runs)
    found = {
        goal.text: goal.met for goal in goals(table, "casc", 51.0, twin=RunTable.of([run("casc", TRACES[0], 0.87)]))
    }
    assert found["at least 2 points over slackfit"] is True
    assert found["at least 2 points over infaas:lazy"] is False
    assert found["at least 2 points over proteus"] is None
    assert found["at least 1.5 points over best static"] is True
    assert found["never more than 0.5 points under the best baseline of a trace"] is True
    assert found["attainment within 0.2 points of `fastest` on every trace"] is True
    assert found["attainment at least 99.5 % where CV² ≤ 2, load ≤ 0.8 and SLO ≥ 5x"] is True
    assert found["goodput at least 95 % of capacity from 1.1x to 3x"] is True
    assert found["simulated effective accuracy within 1 point of the live one on every trace"] is False


def test_markdown_has_every_policy_and_goal() -> None:
    """The README's tables, with the subject in bold."""
    table = RunTable.of([run("casc", TRACES[0], 0.9), run("infaas", TRACES[0], 0.8)])
    found = [Goal("be good", "+1.00", met=True), Goal("be quick", "not run", met=None)]
    text = markdown(table, "casc", found, ["1a2b3c4", "5d6e7f8+"])
    assert "| **casc** | 90.00 % |  | 100.00 % | 20.0 ms |" in text
    assert "| infaas | 80.00 % | -10.00 [-inf, +inf] | 100.00 % | 20.0 ms |" in text
    assert "| be good | +1.00 | met |\n| be quick | not run | not measured |\n" in text
    assert text.endswith("\n\nCommit: 1a2b3c4, 5d6e7f8+ (+: and changes that are not committed)\n")


def test_a_book_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Runs are read back as they were; an invalid one is to be made again."""
    path, context = tmp_path / "runs.json", {"family": "synthetic", "duration_s": 1.0}
    timed = dataclasses.replace(run("casc", "a", 0.5), decisions=Decisions(1.0, 20.0, 90.0))
    spoilt = dataclasses.replace(run("fluid", "a", 0.5), faults=("late",))
    Book(path, context).add([timed, spoilt])
    again = Book(path, context)
    assert repr((timed, spoilt)) == repr(again.runs)
    assert (True, False, False) == tuple(Key(name, "a", 1) in again for name in ("casc", "fluid", "proteus"))


def test_runs_of_other_conditions_are_not_mixed(tmp_path: Path) -> None:
    """The message names what differs; `anew` starts over."""
    path = tmp_path / "runs.json"
    Book(path, {"duration_s": 1.0}).add([run("casc", "a", 0.5)])
    with pytest.raises(BookError, match=r"runs\.json: has runs of another duration_s"):
        Book(path, {"duration_s": 2.0})
    assert () == Book(path, {"duration_s": 2.0}, anew=True).runs


def test_runs_know_their_commit_and_a_suite_goes_on_after_one(tmp_path: Path) -> None:
    """Runs of an earlier commit are not made again, nor told to be of the later one."""
    path, context = tmp_path / "runs.json", {"duration_s": 1.0}
    Book(path, context, commit="1a2b3c4").add([run("casc", "a", 0.5)])
    book = Book(path, context, commit="5d6e7f8+")
    assert Key("casc", "a", 1) in book
    book.add([run("fluid", "a", 0.5)])
    found, runs = read_runs(path)
    assert ("1a2b3c4, 5d6e7f8+", ["1a2b3c4", "5d6e7f8+"]) == (found["commit"], [each.commit for each in runs])
    book.add([run("casc", "a", 0.6)])
    assert ("5d6e7f8+",) == Book(path, context).commits


def test_runs_of_files_without_commits_are_of_an_unknown_one(tmp_path: Path) -> None:
    """Results made before commits were noted are still read."""
    path = tmp_path / "runs.json"
    Book(path, {}, commit="1a2b3c4").add([run("casc", "a", 0.5)])
    path.write_text(path.read_text().replace(',"commit":"1a2b3c4"', ""))
    assert ("unknown",) == Book(path, {}).commits


def test_something_else_is_not_read_as_runs(tmp_path: Path) -> None:
    """One line with the file's name."""
    path = tmp_path / "runs.json"
    path.write_text('{"runs": []}')
    with pytest.raises(BookError, match=r"runs\.json: cannot be read as runs"):
        read_runs(path)


def test_results_survive_a_file(tmp_path: Path) -> None:
    """What the generator noted of each request comes back as it was."""
    results = Results.pending(3)
    results.fate[:] = [Fate.ANSWERED, Fate.REFUSED, Fate.NOT_SENT]
    results.variant[0], results.escalated[0], results.latency_s[0] = "v1", True, 0.25
    results.save(tmp_path / "answers.npz")
    found = Results.load(tmp_path / "answers.npz")
    assert results.fate.tolist() == found.fate.tolist()
    assert ["v1", "", ""] == found.variant.tolist()
    assert [True, False, False] == found.escalated.tolist()
    assert [math.inf] * 2 == found.since(1).latency_s.tolist()


def without_times(runs: list[Run]) -> list[Run]:
    return [dataclasses.replace(run, decisions=None) for run in runs]


def test_processes_change_nothing() -> None:
    """However many simulate, runs are the same and in the order of their tasks."""
    tasks = [(policy, trace, 1) for trace in traces_named(["quick"])[:2] for policy in ("slack-fraction", "fastest")]
    alone, shared = run_all(BENCH, tasks, 1), run_all(BENCH, tasks, 2)
    assert repr(without_times(alone)) == repr(without_times(shared))
    assert [(policy, trace.name) for policy, trace, _ in tasks] == [(run.policy, run.trace) for run in shared]


@pytest.mark.parametrize("name", ["fastest", "casc", "early-exit"])
def test_a_stopwatch_changes_no_decision(name: str) -> None:
    """The timed policy keeps answers exactly if the policy does."""
    assert isinstance(policy_named(name), CascadePolicy) is isinstance(stopwatch(policy_named(name)), CascadePolicy)


def test_what_comes_later_is_judged_apart() -> None:
    """A second run under the trace's name has the later arrivals alone."""
    (trace,) = traces_named(["poisson 0.6"])
    whole, later = dataclasses.replace(BENCH, later_s=0.75).run("fastest", trace, 1)
    assert f"{trace.name}, later" == later.trace
    assert int((BENCH.workload(trace, 1).arrival_s >= 0.75).sum()) == later.arrivals < whole.arrivals
    assert pytest.approx(later.arrivals / 0.25) == later.per_s


def test_wrong_profiles_are_wrong_by_variant() -> None:
    """Factors lie within 30 %, differ, and scale medians and tails alike."""
    factors = profile_factors([variant.name for variant in FAMILY.variants], 1)
    assert len(set(factors.values())) == len(FAMILY.variants)
    assert all(0.7 <= factor <= 1.3 for factor in factors.values())
    wrong = scaled(FAMILY, factors)
    for right, off in zip(FAMILY.variants, wrong.variants, strict=True):
        ratio = np.array(off.latency.median_s) / np.array(right.latency.median_s)
        assert pytest.approx(factors[right.name]) == ratio.min() == pytest.approx(ratio.max())


def test_losses_compare_with_the_same_arrivals_undisturbed() -> None:
    """A surge is compared with both of its rates by their arrivals, everything else with its own trace."""
    steady = traces_of(HOG)
    undisturbed = [run("casc", trace.name, 0.9) for trace in steady]
    undisturbed += [run("casc", "before the surge", 0.9), run("casc", "after the surge", 0.6)]
    hogged = [run("casc", trace.name, 0.8) for trace in steady]
    found = losses({UNDISTURBED: undisturbed, HOG: hogged, SURGE: [run("casc", "surge", 0.65)]})
    assert [HOG, SURGE] == [loss.disturbance for loss in found]
    assert pytest.approx([0.1, 0.05]) == [loss.loss.mean for loss in found]
    assert all(loss.later is None for loss in found)


def test_the_command_runs_the_quick_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From flags to files: runs, goals, Markdown and pictures."""
    flags = ["--family", "synthetic", "--quick", "--duration", "1", "--workers", "1", "--out", str(tmp_path)]
    main([*flags, "--policies", "casc", "slack-fraction", "--traces", "poisson middle 0.7", "overload 2"])
    context, runs = read_runs(tmp_path / "routing_simulated.json")
    assert {"casc", "slack-fraction", *(f"fixed:v{rung}" for rung in range(5))} == {run.policy for run in runs}
    assert ("synthetic", commit_of()) == (context["family"], context["commit"])
    assert 10 == len(context["goals"])
    for name in ("routing_simulated.md", "routing_simulated.png", "routing_simulated_burst.png"):
        assert (tmp_path / name).stat().st_size > 100
    assert "Effective accuracy, percent of all arrivals" in capsys.readouterr().out


def test_the_command_measures_disturbances(tmp_path: Path) -> None:
    """Every disturbance has its loss, over the whole and later."""
    flags = ["--family", "synthetic", "--seeds", "1", "--duration", "10.5", "--workers", "1", "--out", str(tmp_path)]
    main([*flags, "--robustness", "--policies", "fastest"])
    found = orjson.loads((tmp_path / "routing_robustness_simulated.json").read_bytes())["losses"]
    assert list(DISTURBANCES) == [loss["disturbance"] for loss in found]
    assert all(loss["later"] is not None for loss in found)


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--policies", "clairvoyant"], "unknown policy 'clairvoyant'"),
        (["--policies", "fixed:v9"], "policies: fixed:v9: synthetic has no such variant"),
        (["--traces", "sawtooth"], "traces: expected all"),
        (["--trace", "missing.csv"], "missing.csv: cannot be read as CSV"),
        (["--machine", "missing.json"], "missing.json: cannot be read as a machine"),
        (["--robustness", "--duration", "3"], "duration: runs under disturbances take more than 10 s, got 3"),
        (["--live"], "--live needs a family that is built"),
    ],
)
def test_faults_are_one_line(flags: list[str], fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong flag ends the command with what is wrong."""
    with pytest.raises(SystemExit) as ended:
        main(["--family", "synthetic", "--quick", "--out", str(tmp_path), *flags])
    assert 1 == ended.value.code
    assert fault in " ".join(capsys.readouterr().out.split())
