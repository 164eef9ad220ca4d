"""`pareto demo`: a whole day against a real server, what it says, and its ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.demo import Tallied, comparison, lower_rate, tallied
from loadtests.outcomes import Fate, Results
from loadtests.servers import ROOT, free_port
from loadtests.workload import Workload
from service import cli
from service.commands.demo import _advice
from tests.service.conftest import eventually
from tests.service.families import sign_model, write_family
from variants.repository import Repository


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one family, `sign`, of two variants."""
    root = tmp_path_factory.mktemp("models")
    write_family(Repository(root), "sign", {"quick": (sign_model(), 0.8), "better": (sign_model(1), 0.9)})
    return root


def command(models: Path, port: int, *flags: str) -> list[str]:
    named = ["--models", str(models), "--port", str(port), "--no-open", "--rate", "20"]
    return [sys.executable, "-m", "service.cli", "demo", "sign", *named, *flags]


def started(arguments: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "PARETO_CONFIG": "", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_short_day_is_served_and_summed_up(models: Path) -> None:
    """The page's comparison grows while requests are sent; in the end the terminal has a line for everybody."""
    port = free_port()
    demo = started(command(models, port, "--duration", "6", "--once"))
    found: dict[str, object] = {}

    def has_begun() -> bool:
        found.update(_comparison(port) or {})
        return bool(found)

    eventually_long(has_begun, "the page has a comparison")
    out, err = demo.communicate(timeout=120)
    assert 0 == demo.returncode, err
    assert f"the page: http://127.0.0.1:{port}/?family=sign" in out
    said = [line for line in out.splitlines() if line.startswith("  ")]
    assert ["the gateway, live", "the gateway, simulated", "quick alone, simulated", "better alone, simulated"] == [
        line.strip().split("  ")[0] for line in said
    ]
    assert ["quick", "better"] == list(found["fixed"])  # type: ignore[call-overload]  # JSON has no types
    assert 6 == len(found["arrivals"])  # type: ignore[arg-type]  # the same


def _comparison(port: int) -> dict[str, object] | None:
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/page/comparison", timeout=5.0)
    except httpx.HTTPError:
        return None
    return dict(answer.json()) if answer.status_code == 200 and answer.json() else None


def eventually_long(condition: Callable[[], bool], what: str) -> None:
    """As `eventually`, for something that simulates first."""
    for _ in range(5):
        try:
            eventually(condition, what)
        except AssertionError:
            continue
        return
    raise AssertionError(f"never: {what}")


@pytest.mark.parametrize(
    ("live", "noon", "less"), [(100, 545.0, None), (90, 545.0, None), (89, 545.0, 270.0), (56, 20.0, 10.0)]
)
def test_a_machine_that_cannot_keep_up_is_told_so(live: int, noon: float, less: float | None) -> None:
    """More than ten points of attainment below the simulated twin, a lower rate is named, else nothing is said."""
    workload = Workload(np.zeros(100), np.ones(100), np.zeros(100, np.int64), "")
    twin, own = (Tallied(np.zeros(2, np.int64), np.array([count, 0])) for count in (100, live))
    assert less == lower_rate(workload, twin, own, noon)
    said = _advice("sign", less)
    assert (less is not None) == bool(said)
    assert not said or said[-1].endswith(f"pareto demo sign --rate {less:g}")
    assert not said or "could not keep up" in said[0]


def test_ctrl_c_ends_it_whole(models: Path) -> None:
    """SIGINT in the middle of the day ends generator and server, with nothing left listening and no traceback."""
    port = free_port()
    demo = started(command(models, port, "--duration", "60"))
    eventually_long(lambda: _comparison(port) is not None, "the day has begun")
    demo.send_signal(signal.SIGINT)
    out, err = demo.communicate(timeout=60)
    assert 0 == demo.returncode, err
    assert "Traceback" not in out + err
    with socket.socket() as probe:
        assert 0 != probe.connect_ex(("127.0.0.1", port))


def test_ctrl_c_ends_the_simulations_too(models: Path) -> None:
    """Interrupted before the day begins, the demo waits for nothing: no server has to be killed."""
    demo = started([*command(models, free_port(), "--duration", "600"), "--rate", "500"])
    assert demo.stdout is not None
    while "the page: " not in demo.stdout.readline():
        assert demo.poll() is None
    demo.send_signal(signal.SIGINT)
    _, err = demo.communicate(timeout=60)
    assert (0, False) == (demo.returncode, "killed" in err), err


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--duration", "1"), 2, "--duration: expected at least 5 seconds"),
        (("--duration", "nan"), 2, "--duration: expected at least 5 seconds"),
        (("--rate", "0"), 2, "--rate: expected a positive number"),
    ],
)
def test_odd_flags_are_one_line(
    capsys: pytest.CaptureFixture[str], models: Path, flags: tuple[str, str], code: int, said: str
) -> None:
    """What cannot be is said before anything is started."""
    assert code == cli.run(["demo", "sign", "--models", str(models), *flags])
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_taken_port_and_a_missing_family_are_one_line(capsys: pytest.CaptureFixture[str], models: Path) -> None:
    """Who is in the way, and what there is instead."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert 1 == cli.run(["demo", "sign", "--models", str(models), "--port", str(port)])
    (line,) = capsys.readouterr().err.splitlines()
    assert f"port {port} on 127.0.0.1 is in use" in line
    assert 1 == cli.run(["demo", "nobody", "--models", str(models), "--port", str(free_port())])
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no family 'nobody', but sign" in line


@given(st.lists(st.tuples(st.floats(0, 9.9), st.sampled_from(Fate), st.floats(0, 0.1), st.booleans()), min_size=1))
def test_seconds_add_up_to_the_whole(rows: list[tuple[float, Fate, float, bool]]) -> None:
    """What is counted by second is what counts over all: in time, and correct among those."""
    rows.sort(key=lambda row: row[0])
    count = len(rows)
    arrival_s = np.array([row[0] for row in rows])
    workload = Workload(arrival_s, np.full(count, 0.05), np.zeros(count, np.int64))
    results = Results.pending(count)
    for index, (_, fate, latency_s, right) in enumerate(rows):
        results.fate[index], results.latency_s[index], results.label[index] = fate, latency_s, 0 if right else 1
    found = tallied(workload, np.array([0]), results, 10)
    in_time = [fate is Fate.ANSWERED and latency_s <= 0.05 for _, fate, latency_s, _ in rows]
    assert sum(in_time) == found.in_time.sum()
    assert sum(good and row[3] for good, row in zip(in_time, rows, strict=True)) == found.correct.sum()
    shown = comparison(workload, 10, {"casc": found, "fixed:a": found}, found, 4, "casc")
    assert count == sum(shown["arrivals"])
    assert (4, 10, False) == (len(shown["live"]["correct"]), len(shown["fixed"]["a"]["correct"]), shown["done"])
