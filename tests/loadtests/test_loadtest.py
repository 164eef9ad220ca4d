"""`pareto loadtest` against a real server: every profile, every way to send, and whatever can go wrong.

Whether a run is valid depends on how busy the machine is, so nothing here asserts that it is.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from loadtests.harness.cargo import Plan
from loadtests.harness.conductor import Conductor, Ways
from loadtests.harness.measured import Run
from loadtests.harness.profiles import Profile
from loadtests.harness.rows import from_gateway
from loadtests.harness.search import SearchOptions
from loadtests.harness.session import Ended, Session
from loadtests.harness.spike import SpikeOptions
from loadtests.harness.subject import Member, Subject
from loadtests.harness.target import Target
from loadtests.harness.verdict import Wanted
from loadtests.load import Load
from loadtests.scoring import Fate
from loadtests.servers import ROOT, Command, Server, free_port, running
from loadtests.workload import SloMix
from service import cli
from tests.service.conftest import eventually

TINY_SERVER = Path(__file__).with_name("tiny_server.py")
START_S = 120.0
PASSED_OR_INVALID, MISSED_OR_INVALID = (0, 3), (4, 3)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A stand-in for the gateway."""
    arguments = ("-m", "uvicorn", "tiny_server:app", "--app-dir", str(TINY_SERVER.parent), "--log-level", "warning")
    with running(Command("tiny", (sys.executable, *arguments, "--port", "{port}"))) as started:
        yield started


def asking(server: Server, family: str = "tiny", slo_ms: str = "5000") -> Subject:
    target = Target(server.url)
    served = target.served(family)
    stock = from_gateway(target, served)
    assert stock is not None
    return Subject(target, (Member(served, stock, SloMix.parse(slo_ms)),))


class Silent:
    """Shows nothing; keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, Any]] = []
        self.said: list[str] = []

    def begin(self, label: str, plan: Plan) -> None:
        """Nothing."""

    def counts(self, counts: Mapping[str, Any]) -> None:
        self.told.append(counts)

    def end(self, run: Run | None) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        self.said.append(line)


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
    profile = Profile("steady", load(150.0, 2.0), 3, Wanted(0.5))
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


def test_a_search_ends_at_the_gateways_edge(server: Server, conductor: Conductor) -> None:
    """A server that takes 90 a second is found to do no more, unless the generator was in the way."""
    narrow = Narrow(Target(server.url), both(server).members)
    profile = Profile("search", load(40.0, 1.0), 0, Wanted(0.9), search=SearchOptions(0.5, 2))
    ended, session, display = profiled(conductor, narrow, profile)
    details = ended.details
    assert len(session.runs) == len(display.said)
    assert details["limit"] in ("gateway", "generator")
    if details["limit"] == "gateway":
        assert details["rate"] in (40.0, 80.0)
        assert "requests/s with 90 % answered within 5000 ms" in ended.lines[0]


class Narrow(Subject):
    """Of both families, whose numbers the generator knows, only the second is asked."""

    def of(self, arrival_s: Any, called: str, rng: np.random.Generator) -> Plan:
        plan = super().of(arrival_s, called, rng)
        work = plan.workload
        sample = self.first_message(1) + work.sample % len(self.members[1].stock.messages)
        return Plan(type(work)(work.arrival_s, work.slo_s, sample), np.ones_like(plan.way), plan.tenant)


def test_a_soak_reads_memory_and_a_spike_recovers(server: Server, conductor: Conductor) -> None:
    """Both judge what they are there for."""
    of = asking(server)
    soaked, _, _ = profiled(conductor, of, Profile("soak", load(100.0, 3.0), 0))
    assert ["drift of p50", "drift of p99", "growth of memory"] == [check.what for check in soaked.verdict.checks][2:]
    assert {150_000_000.0} == {read for _, read in soaked.details["memory"]}
    profile = Profile("spike", load(60.0, 3.0), 0, spike=SpikeOptions(3.0, 1.0, 5.0))
    spiked, session, _ = profiled(conductor, of, profile)
    assert (1.0, 2.0) == (spiked.details["begin_s"], spiked.details["end_s"])
    assert "recovery" in [check.what for check in spiked.verdict.checks]
    within = (session.runs[0].ran.plan.workload.arrival_s >= 1.0) & (session.runs[0].ran.plan.workload.arrival_s < 2.0)
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


def command(server: Server | str, *flags: str) -> list[str]:
    return ["loadtest", server if isinstance(server, str) else server.url, *flags]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are written into an empty folder, where there are no settings and no models."""
    monkeypatch.chdir(tmp_path)


def test_a_whole_load_test(server: Server, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Table, verdict, JSON and page; a key is asked for and kept secret; two such results can be compared."""
    flags = ["--family", "tiny:3", "--family", "narrow", "--rate", "80", "--duration", "1", "--attainment", "0.2"]
    flags += ["--tenant", "gold", "--tenant", "free:2", "--header", "X-Key: right", "--slo-mix", "2000"]
    for name in ("a", "b"):
        code = cli.run([*command(server, *flags, "--out", f"deep/{name}")])
        out, err = capsys.readouterr()
        assert code in PASSED_OR_INVALID, err
    assert "answered in time" in out
    assert "tenant gold" in out
    assert "tiny" in err
    text = (tmp_path / "deep" / "a.json").read_text()
    values = json.loads(text)
    assert (1, "steady", "abc1234") == (values["schema"], values["profile"], values["gateway"]["commit"])
    assert [0.75, 0.25] == [family["share"] for family in values["families"]]
    assert ["3 rows of the gateway's page"] * 2 == [family["rows"] for family in values["families"]]
    assert "right" not in text
    assert (values["verdict"]["outcome"] == "invalid") == ("INVALID" in (tmp_path / "deep" / "a.html").read_text())
    code = cli.run(["loadtest", "--compare", "deep/a.json", "deep/b.json", "--out", "both"])
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


def test_two_workers_send_one_load(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Real processes of locust share the requests; what they hand in is as much as one would."""
    flags = ("--family", "tiny", "--rate", "100", "--duration", "2", "--slo-mix", "2000", "--seed", "5")
    code = cli.run(command(server, *flags, "--workers", "2"))
    _, err = capsys.readouterr()
    assert code in PASSED_OR_INVALID, err
    values = json.loads(Path("loadtest.json").read_text())
    (run,) = values["runs"]
    sent = asking(server, slo_ms="2000").draw(load(100.0, 2.0), 5)
    assert len(sent) == run["score"]["arrivals"]
    assert [len(sent) - len(sent) // 2, len(sent) // 2] == [one["requests"] for one in run["generators"]]
    assert {"answered": 1.0} == {fate: share for fate, share in run["score"]["fates"].items() if share}
    cli.run(command(server, *flags))
    (alone,) = json.loads(Path("loadtest.json").read_text())["runs"]
    assert alone["workload"] == run["workload"], "together they send what one would"


def started(*arguments: str) -> subprocess.Popen[str]:
    program = [sys.executable, "-m", "service.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_ends_with_what_there_is(server: Server) -> None:
    """The report of the requests that were sent, exit code 130, and no process left."""
    running_test = started(*command(server, "--family", "tiny", "--rate", "50", "--duration", "600"))
    before = seen(server)
    eventually(lambda: seen(server) > before + 5, "the generator sends", START_S)
    children = descendants(running_test.pid)
    running_test.send_signal(signal.SIGINT)
    out, err = running_test.communicate(timeout=60)
    assert 130 == running_test.returncode, err
    assert "INTERRUPTED" in out
    assert "Traceback" not in out + err
    assert 0 < json.loads(Path("loadtest.json").read_text())["runs"][0]["score"]["arrivals"] < 5000
    assert (True, []) == (bool(children), [pid for pid in children if psutil.pid_exists(pid)])


def seen(server: Server) -> int:
    count: int = httpx.get(f"{server.url}/seen").json()["requests"]
    return count


def descendants(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def test_locusts_page_starts_and_stops(server: Server) -> None:
    """The form has the load; its button sends it, as often as it is pressed; what runs can be stopped there."""
    port = free_port()
    flags = ("--family", "tiny", "--rate", "40", "--duration", "1", "--slo-mix", "2000", "--web", str(port))
    page = started(*command(server, *flags))
    url = f"http://127.0.0.1:{port}"
    eventually(lambda: answers(url), "the page is there", START_S)
    assert "slo_mix" in httpx.get(url).text
    written = Path("loadtest.json")
    form = {"user_count": "1", "spawn_rate": "1"}
    assert httpx.post(f"{url}/swarm", data=form).json()["success"]
    eventually(written.is_file, "the first load test is over")
    assert 40.0 == json.loads(written.read_text())["runs"][0]["rate_asked"]
    eventually(lambda: shown(url)["state"] == "stopped", "the page shows that")
    written.unlink()
    assert httpx.post(f"{url}/swarm", data={**form, "rate": "50", "duration": "600"}).json()["success"]
    eventually(lambda: shown(url)["state"] == "running", "it runs again")
    eventually(lambda: shown(url)["stats"][-1]["num_requests"] > 5, "requests are shown")
    httpx.post(f"{url}/stop")
    eventually(written.is_file, "what there is of the second one is written")
    values = json.loads(written.read_text())
    assert ("interrupted", 50.0) == (values["verdict"]["outcome"], values["runs"][0]["rate_asked"])
    page.send_signal(signal.SIGINT)
    out, err = page.communicate(timeout=60)
    assert "Traceback" not in out + err
    assert "INTERRUPTED" in out


def shown(url: str) -> dict[str, Any]:
    """What locust's page shows."""
    found: dict[str, Any] = httpx.get(f"{url}/stats/requests").json()
    return found


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5.0).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        ("", 2, "say what arrives: --rate R, or --trace FILE.csv"),
        ("--rate 5 --family nobody", 1, "does not serve 'nobody', but tiny, narrow"),
        ("--rate 5 --family tiny:x", 2, "--family: expected names"),
        ("--rate 5 --family tiny --variant best", 2, "--variant: tiny has no 'best', but small, large"),
        ("--rate 5 --variant small", 2, "--variant pins one of one family"),
        ("--rate 5 --header x-key:wrong", 1, "answers 401: who asks is not known"),
        ("--rate 5 --header nonsense", 2, "--header: expected 'NAME: VALUE'"),
        ("--rate 5 --header @nothing", 2, "--header: nothing: cannot be read"),
        ("--rate 5 --rows no.npz", 2, "--rows: there are several families"),
        ("--rate 5 --family tiny --rows no.npz", 2, "no.npz: cannot be read"),
        ("--rate 5 --family tiny --rows other=no.npz", 2, "--rows: 'other' is not asked, but tiny"),
        ("--rate -5", 2, "rate: expected a positive number"),
        ("--rate 1e6 --duration 1e6", 2, "load: more than 2,000,000 requests"),
        ("--rate 5 --slo-mix soon", 2, "slo-mix: expected milliseconds:weight"),
        ("--rate 5 --profile marathon", 2, "--profile: expected one of steady, smoke, search, soak, spike"),
        ("--rate 5 --attainment 2", 2, "--attainment: expected a share"),
        ("--rate 5 --burst 1", 2, "--burst: expected a number over 1"),
        ("--rate 5 --failed -1", 2, "--failed: expected a number of at least 0"),
        ("--rate 5 --workers 1000", 2, "--workers: expected 0 to 256"),
        ("--rate 5 --listen 127.0.0.1:5557", 2, "--listen waits for workers"),
        ("--rate 5 --web port", 2, "--web: expected HOST:PORT"),
        ("--profile search --trace x.csv", 2, "--profile search looks for a rate"),
        ("--profile spike --rate 5 --duration 5", 2, "spike: a burst of 5 s leaves no time"),
        ("--models nowhere --family tiny --rate 5", 1, "no family 'tiny' here"),
    ],
)
def test_what_cannot_be_tested_is_one_line(
    server: Server, capsys: pytest.CaptureFixture[str], flags: str, code: int, says: str
) -> None:
    """The exit code tells wrong flags from a gateway that does not answer as it should."""
    assert code == cli.run(command(server, *flags.split()))
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert ("", True) == (out, line.startswith("pareto: "))
    assert says in line


@pytest.mark.parametrize(
    ("url", "code", "says"),
    [
        ("http://127.0.0.1:{free}", 1, "no gateway at http://127.0.0.1:{free}: "),
        ("https://127.0.0.1:{port}", 1, "no gateway at https://127.0.0.1:{port}: "),
        ("http://127.0.0.1:{port}/elsewhere", 1, "answers 404, expected 200"),
        ("ftp://127.0.0.1", 2, "URL: expected http://HOST:PORT"),
        ("127.0.0.1:3000", 2, "URL: expected http://HOST:PORT"),
        ("http://me:secret@127.0.0.1", 2, "URL: takes no user and password"),
        ("http://127.0.0.1:99999", 2, "URL: expected http://HOST:PORT"),
    ],
)
def test_addresses_that_lead_nowhere_are_one_line(
    server: Server, capsys: pytest.CaptureFixture[str], url: str, code: int, says: str
) -> None:
    """Nobody there, another protocol, another path, no address at all; no secret is repeated."""
    ports = {"free": free_port(), "port": server.port}
    assert code == cli.run(["loadtest", url.format(**ports), "--rate", "5"])
    (line,) = capsys.readouterr().err.splitlines()
    assert says.format(**ports) in line
    assert "secret" not in line


def test_a_port_in_use_is_named(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Of locust's page, before anything is started."""
    assert 1 == cli.run(command(server, "--rate", "5", "--web", str(server.port)))
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(rf"port {server.port} on 127.0.0.1 is in use.*; choose another with --web", line)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        ("{", "is no JSON"),
        ("[]", "is no result of `pareto loadtest`"),
        ('{"kind": "pareto-loadtest", "schema": 99}', "has schema 99"),
        ('{"kind": "pareto-loadtest", "schema": 1}', "holds no run"),
        ('{"kind": "pareto-loadtest", "schema": 1, "runs": [{}], "details": {}}', "damaged"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    capsys: pytest.CaptureFixture[str], content: str | None, says: str
) -> None:
    """Missing files, other files, and results of another program."""
    if content is not None:
        Path("odd.json").write_text(content)
    assert 1 == cli.run(["loadtest", "--compare", "odd.json", "odd.json"])
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_workers_are_only_workers() -> None:
    """Locust's own ways to start a test lead to one line that says how it is done."""
    program = (sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py"), "--headless")
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    assert 2 == done.returncode
    assert "only workers are started like this" in done.stderr


def test_a_port_that_nobody_serves_is_free_again(server: Server) -> None:
    """After all of the above the server still answers."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5.0):
        assert Target(server.url).ready()
