"""`pareto loadtest` against a real server: profiles, rows, records.

Whether a run is valid depends on how busy the machine is, so nothing here asserts that it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.harness.conductor import Conductor, Ways
from loadtests.harness.profiles import Profile
from loadtests.harness.session import Ended, Session
from loadtests.harness.spike import SpikeOptions
from loadtests.harness.subject import Subject
from loadtests.harness.target import Target
from loadtests.harness.verdict import Wanted
from loadtests.load import Load
from loadtests.outcomes import Fate
from loadtests.servers import Server, free_port
from loadtests.workload import SloMix
from service import cli
from tests.loadtests.asking import MISSED_OR_INVALID, PASSED_OR_INVALID, asking, command
from tests.loadtests.judged import Silent

pytestmark = pytest.mark.usefixtures("elsewhere")


def both(server: Server) -> Subject:
    members = (*asking(server).members, *asking(server, "narrow").members)
    return Subject(Target(server.url), tuple(replace(member, share=0.5) for member in members))


@pytest.fixture(scope="module")
def conductor(server: Server) -> Iterator[Conductor]:
    """One generator process for both families of the server."""
    with Conductor(both(server).cargo(), Ways()) as started:
        yield started


def profiled(conductor: Conductor, of: Subject, profile: Profile) -> tuple[Ended, Session, Silent]:
    display = Silent()
    session = Session(conductor, of, display)
    return profile.run(session), session, display


def load(rate: float, duration_s: float, slo_ms: str = "5000") -> Load:
    return Load(SloMix.parse(slo_ms), duration_s, rate)


def test_every_request_has_its_fate(server: Server, conductor: Conductor) -> None:
    """Right, wrong and refused are told apart, with the server's reasons; nothing is lost; counts come meanwhile."""
    of = asking(server, slo_ms="5:1,5000:3")
    profile = Profile("steady", load(150.0, 1.2), 3, Wanted(0.5))
    ended, session, display = profiled(conductor, of, profile)
    (run,) = session.runs
    tight = run.ran.plan.workload.slo_s < 0.01
    assert {Fate.REFUSED} == set(run.ran.results.fate[tight])
    assert {Fate.ANSWERED} == set(run.ran.results.fate[~tight])
    assert {"deadline_infeasible": int(tight.sum())} == run.reasons()
    assert (1.0, {"large": 1.0}) == (run.score.accuracy, run.score.answers)
    assert pytest.approx(0.0005) == run.score.compute_p50_s
    assert [True, True] == [check.passed for check in ended.verdict.checks]
    due = [counts["due"] for counts in display.told]
    assert due == sorted(due)
    assert display.told[-1]["fates"]["answered"] <= int((~tight).sum())


def test_smoke_pins_every_variant(server: Server, conductor: Conductor) -> None:
    """Both families, and each variant by itself; that some answers are wrong is no fault here."""
    ended, session, _ = profiled(conductor, both(server), Profile("smoke", None, 0))
    pinned = ["tiny/small", "tiny/large", "narrow/small", "narrow/large"]
    assert ["tiny", "narrow", *pinned] == [check.what for check in ended.verdict.checks]
    assert (0, 1) == (ended.verdict.exit_code, len(session.runs))
    assert ("2 of 2 families answered, 4 of 4 variants asked for by name answered",) == ended.lines
    assert all(re.fullmatch(r"answered by \S+ in [\d.]+ ms", check.found) for check in ended.verdict.checks)


def test_a_soak_reads_memory_and_a_spike_recovers(server: Server, conductor: Conductor) -> None:
    """Both judge what they are there for."""
    of = asking(server)
    soaked, _, _ = profiled(conductor, of, Profile("soak", load(100.0, 1.5), 0))
    assert ["drift of p50", "drift of p99", "growth of memory"] == [check.what for check in soaked.verdict.checks][2:]
    assert {150_000_000.0} == {read for _, read in soaked.details["memory"]}
    profile = Profile("spike", load(120.0, 1.5), 0, spike=SpikeOptions(3.0, 0.5, 5.0))
    spiked, session, _ = profiled(conductor, of, profile)
    assert (0.5, 1.0) == (spiked.details["begin_s"], spiked.details["end_s"])
    assert "recovery" in [check.what for check in spiked.verdict.checks]
    within = (session.runs[0].ran.plan.workload.arrival_s >= 0.5) & (session.runs[0].ran.plan.workload.arrival_s < 1.0)
    assert within.sum() > 1.5 * (~within).sum() / 2.0


def test_a_server_that_goes_away_loses_requests_and_nothing_else(server: Server) -> None:
    """Each request to nobody has failed, with a reason; the run ends."""
    of = asking(server)
    with Conductor(Subject(Target(f"http://127.0.0.1:{free_port()}"), of.members).cargo(), Ways()) as gone:
        ended, session, _ = profiled(gone, of, Profile("steady", load(50.0, 1.0), 0))
    (run,) = session.runs
    assert {"no connection": len(run.ran.plan)} == run.reasons()
    assert {"failed": 1.0} == {fate: share for fate, share in run.score.fates.items() if share}
    assert ended.verdict.exit_code in MISSED_OR_INVALID


def test_a_whole_load_test(server: Server, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Table, verdict, JSON and page; a key is asked for and kept secret; two such results can be compared."""
    flags = ["--family", "tiny:3", "--family", "narrow", "--rate", "80", "--duration", "1", "--attainment", "0.2"]
    flags += ["--tenant", "gold", "--tenant", "free:2", "--header", "X-Key: right", "--slo-mix", "2000"]
    code = cli.run([*command(server, *flags, "--out", "deep/a")])
    out, err = capsys.readouterr()
    assert code in PASSED_OR_INVALID, err
    assert "answered in time" in out
    assert "tenant gold" in out
    assert "tiny" in err
    assert f"--out: made the folder {tmp_path / 'deep'}" in err
    text = (tmp_path / "deep" / "a.json").read_text()
    values = json.loads(text)
    assert (1, "steady", "abc1234") == (values["schema"], values["profile"], values["gateway"]["commit"])
    assert [0.75, 0.25] == [family["share"] for family in values["families"]]
    assert ["3 rows of the gateway's page"] * 2 == [family["rows"] for family in values["families"]]
    assert "right" not in text
    assert (values["verdict"]["outcome"] == "invalid") == ("INVALID" in (tmp_path / "deep" / "a.html").read_text())
    code = cli.run(["loadtest", "--compare", "deep/a.json", "deep/a.json", "--out", "both"])
    out, err = capsys.readouterr()
    assert (0, True) == (code, (tmp_path / "both.html").is_file())
    assert "latency, median" in out


def test_rows_of_a_repository_and_a_pinned_variant(
    server: Server, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--models` brings labelled rows; `small` gives answers that are partly wrong."""
    flags = ("--family", "tiny", "--models", str(models), "--variant", "small", "--rate", "60", "--duration", "1")
    code = cli.run(command(server, *flags, "--slo-mix", "2000", "--effective-accuracy", "0.99"))
    out, _ = capsys.readouterr()
    assert code in MISSED_OR_INVALID
    assert "small 100.0 %" in out
    (family,) = json.loads(Path("loadtest.json").read_text())["families"]
    assert ("small", True) == (family["pinned"], "64 rows" in family["rows"])
