"""The locust file, started for real against a small server: what it sends, what it reports, what it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from loadtests.report import read_score
from loadtests.scoring import Score
from loadtests.servers import ROOT, Command, Server, free_port, running
from loadtests.workload import Workload

TINY_SERVER = Path(__file__).with_name("tiny_server.py")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    arguments = ("-m", "uvicorn", "tiny_server:app", "--app-dir", str(TINY_SERVER.parent), "--log-level", "warning")
    with running(Command("tiny", (sys.executable, *arguments, "--port", "{port}"))) as started:
        yield started


def locust(*options: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--only-summary", *options)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def scored(server: Server, models: Path, report: Path, *options: str) -> tuple[Score, subprocess.CompletedProcess[str]]:
    common = ("--headless", "-H", server.url, "--models", str(models), "--family", "tiny", "--report", str(report))
    done = locust(*common, *options)
    assert done.returncode in (0, 3), done.stderr
    return read_score(report), done


def test_a_saved_workload_is_sent_whole_and_scored(server: Server, models: Path, tmp_path: Path) -> None:
    """Every arrival is sent once; wrong, late and refused ones are told apart."""
    rng = np.random.default_rng(0)
    slo_s = np.where(np.arange(200) % 4 == 0, 0.005, 30.0)
    workload = Workload(np.sort(rng.uniform(0.0, 1.0, 200)), slo_s, rng.integers(0, 64, 200), "saved")
    workload.save(tmp_path / "w.npz")
    score, done = scored(server, models, tmp_path / "out.json", "--workload", str(tmp_path / "w.npz"))
    assert 200 == score.arrivals
    assert {"answered": 0.75, "refused": 0.25} == {fate: share for fate, share in score.fates.items() if share}
    assert (0.75, 0.75, 1.0) == (score.effective_accuracy, score.attainment, score.accuracy)
    assert {"large": 1.0} == score.answers
    assert pytest.approx(0.0005) == score.compute_p50_s
    assert "saved" in done.stdout
    assert ("INVALID RUN" in done.stdout) == (not score.valid) == (done.returncode == 3)


def test_the_same_seed_draws_the_same_workload(server: Server, models: Path, tmp_path: Path) -> None:
    """Rate, process, mix and seed make the workload, which can be saved."""
    options = ("--rate", "80", "--duration", "0.5", "--process", "gamma", "--slo-mix", "2000:1,3000:1", "--seed", "4")
    for name in ("a", "b"):
        scored(server, models, tmp_path / "out.json", *options, "--save-workload", str(tmp_path / f"{name}.npz"))
    first, second = (Workload.load(tmp_path / f"{name}.npz") for name in ("a", "b"))
    assert first.arrival_s.tolist() == second.arrival_s.tolist()
    assert {2.0, 3.0} == set(first.slo_s.tolist())


def test_a_recorded_trace_is_replayed_at_the_rate_asked_for(server: Server, models: Path, tmp_path: Path) -> None:
    """A CSV of 21 seconds becomes half a second at 40 per second."""
    trace = tmp_path / "trace.csv"
    trace.write_text("time\n" + "\n".join(str(second) for second in range(21)))
    options = ("--process", "csv", "--trace", str(trace), "--rate", "40", "--slo-mix", "2000")
    score, _ = scored(server, models, tmp_path / "out.json", *options)
    assert (21, 1.0) == (score.arrivals, score.fates["answered"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rate", "-1"], "rate: expected a positive number"),
        (["--slo-mix", "fast"], "slo-mix: expected milliseconds:weight"),
        (["--cv2", "0"], "cv2: expected a positive number"),
        (["--process", "csv"], "--process csv and --trace FILE.csv go together"),
        (["--family", "absent"], "no family 'absent'"),
        (["--models", "/nowhere"], "no family 'tiny'"),
        (["--workload", "/nowhere.npz"], "/nowhere.npz: cannot be read"),
    ],
)
def test_what_cannot_run_ends_with_one_line(models: Path, options: list[str], message: str) -> None:
    """Exit code 2 and one line that says what was wrong."""
    given = ("--headless", "-H", "http://127.0.0.1:9", "--models", str(models), "--family", "tiny")
    done = locust(*given, *options)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("loadtest: ")]
    assert message in line
    assert "Traceback" not in done.stderr
    assert 2 == done.returncode


def test_a_server_that_is_not_there_is_named(models: Path) -> None:
    """The address stands in the message."""
    url = f"http://127.0.0.1:{free_port()}"
    done = locust("--headless", "-H", url, "--models", str(models), "--family", "tiny")
    assert f"loadtest: no gateway at {url}" in done.stderr
    assert 2 == done.returncode


def test_a_variant_that_is_not_served_is_named(server: Server, models: Path) -> None:
    """The server is asked before the first request leaves."""
    done = locust("--headless", "-H", server.url, "--models", str(models), "--family", "tiny", "--variant", "medium")
    assert f"loadtest: {server.url} does not serve tiny/medium" in done.stderr
    assert 2 == done.returncode
