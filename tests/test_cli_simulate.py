"""`pareto simulate`: tables, JSON and pictures from a repository, and one line for what cannot be simulated."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from service import cli
from service.commands.failure import CommandError
from tests.service.families import sign_model, write_family
from variants.repository import Repository


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A working directory without models and settings."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one family, `sign`, of two variants."""
    root = tmp_path_factory.mktemp("models")
    write_family(Repository(root), "sign", {"quick": (sign_model(), 0.8), "better": (sign_model(1), 0.9)})
    return root


def simulated(capsys: pytest.CaptureFixture[str], models: Path, *flags: str) -> tuple[int, str, list[str]]:
    """Exit code, standard output, and the lines on the error output."""
    code = cli.run(["simulate", "sign", "--models", str(models), "--seeds", "2", "--duration", "1", *flags])
    printed = capsys.readouterr()
    return code, printed.out, printed.err.splitlines()


def test_a_forecast_is_printed_and_drawn(capsys: pytest.CaptureFixture[str], models: Path, tmp_path: Path) -> None:
    """A row for each number of replicas, the profile's machine below, and a picture where one was asked for."""
    flags = ("--rate", "50", "--slo-mix", "200", "--replicas", "1..2", "--slots", "1", "--out", "deep/forecast.png")
    code, out, err = simulated(capsys, models, *flags)
    assert 0 == code
    assert "sign, " in out
    assert "poisson, " in out
    assert "each replica: 1 slot on " in out
    assert "1 replica answers 99 % of requests in time" in out
    assert [f"--out: made the folder {tmp_path / 'deep'}", "drawn: deep/forecast.png"] == err[-2:]
    assert (tmp_path / "deep" / "forecast.png").stat().st_size > 1000


def test_a_forecast_names_the_slots_of_devices(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, models: Path
) -> None:
    """How many of which threads each has, and no number of threads that is of one of them alone."""
    monkeypatch.setenv("PARETO_DEVICES", '{"narrow": {"slots": 2}, "wide": {"threads": 2}}')
    code, out, _ = simulated(capsys, models, "--rate", "50", "--slo-mix", "200")
    assert 0 == code
    assert "each replica: 1 slot of 2 threads (wide), 2 slots of 1 thread (narrow) on " in out
    assert "; 2 threads" not in out


def test_a_forecast_fits_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, models: Path
) -> None:
    """In 80 columns no cell breaks: who answered stands in lines, and columns that go are named."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    code, out, _ = simulated(capsys, models, "--rate", "50", "--slo-mix", "200")
    lines = re.sub("\x1b\\[[0-9;]*m", "", out).splitlines()
    assert (0, 80) == (code, max(80, *map(len, lines)))
    assert "\u2026" not in out
    answered = [line.split("\u2502")[-2].split() for line in lines if line.startswith("\u2502")]
    assert all(len(cell) == 2 and cell[0] in ("quick", "better") for cell in answered)
    assert "a wider terminal or a pipe shows all" in " ".join(" ".join(lines).split())


def test_what_takes_long_says_so_where_no_bar_is_seen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, models: Path
) -> None:
    """A line every so often, with how much is done."""
    told, lines = threading.Event(), list[str]()

    def echo(line: str, *, err: bool) -> None:
        lines.append(line)
        told.set()

    def patient(*_: object) -> NoReturn:
        told.wait(60.0)
        raise CommandError("enough")

    monkeypatch.setattr("service.commands.heartbeat.EVERY_S", 0.01)
    monkeypatch.setattr("service.commands.heartbeat.typer", SimpleNamespace(echo=echo))
    monkeypatch.setattr("loadtests.whatif.predict", patient)
    simulated(capsys, models, "--rate", "50", "--replicas", "2..3")
    assert re.fullmatch(r"simulating sign, \d+ requests a run: 0 of 4 done after \d+ s", lines[0])


def test_a_forecast_for_programs(capsys: pytest.CaptureFixture[str], models: Path) -> None:
    """JSON holds the question, the machine and every forecast; `auto` says how many replicas are enough."""
    flags = ("--rate", "50", "--slo-mix", "200", "--replicas", "auto", "--policy", "fixed:quick", "--json")
    code, out, _ = simulated(capsys, models, *flags)
    values = json.loads(out)
    assert 0 == code
    assert (1, "fixed:quick") == (values["replicas_enough"], values["policy"])
    (forecast,) = values["forecasts"]
    assert {"quick": 1.0} == forecast["answers"]
    assert 0.0 <= forecast["effective_accuracy"]["low"] <= forecast["attainment"]["mean"] <= 1.0
    assert {"slots", "noise", "request_s"} <= set(values["simulated_machine"])


def test_a_recording_and_the_familys_own_slo(capsys: pytest.CaptureFixture[str], models: Path, tmp_path: Path) -> None:
    """Arrivals may come from a file; without a mix the family's default SLO counts."""
    (tmp_path / "calls.csv").write_text("\n".join(str(number / 10) for number in range(10)))
    code, out, _ = simulated(capsys, models, "--trace", "calls.csv", "--variants", "better")
    assert 0 == code
    assert "calls.csv, 10/s for 1 s, SLO 10000 ms" in out
    assert "better 100%" in out
    code, out, _ = simulated(capsys, models, "--trace", "calls.csv", "--variants", "better", "--trace-rate", "100")
    assert 0 == code
    assert "calls.csv, 100/s for 0.1 s," in out, "a recording lasts as long as it does at its rate"


def test_what_no_number_of_replicas_answers_ends_with_one(capsys: pytest.CaptureFixture[str], models: Path) -> None:
    """A script sees from the exit code that the target is out of reach; the table is printed all the same."""
    code, out, err = simulated(capsys, models, "--rate", "20", "--slo-mix", "0.001", "--replicas", "auto")
    assert 1 == code
    assert "sign, " in out
    assert (
        "pareto: not even 64 replicas answer 99.0% in time, but 0.0%: compare the SLOs with `pareto profile`" == err[-1]
    )


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("", "say what arrives: --rate R, or --trace FILE.csv"),
        ("--rate -1", "rate: expected a positive number, got -1.0"),
        ("--rate 5 --process flood", "process: expected one of poisson"),
        ("--rate 5 --cv2 8", "--cv2 does not change poisson arrivals: add --process gamma"),
        ("--rate 5 --trace calls.csv", "--trace brings its own arrivals"),
        ("--rate 5 --trace-rate 7", "--trace-rate rescales a recording"),
        ("--trace calls.csv", "calls.csv: cannot be read as CSV"),
        ("--rate 5 --slo-mix soon", "slo-mix: expected milliseconds:weight, got 'soon'"),
        ("--rate 5 --replicas 3..1", "--replicas: expected a number, a range like 1..4, or auto, got '3..1'"),
        ("--rate 5 --attainment 1.5", "--attainment: expected a share over 0 and at most 1, got 1.5"),
        ("--rate 5 --seeds 0", "--seeds: expected at least 1, got 0"),
        ("--rate 5 --out picture.gif", "--out: expected a file that ends in .png or .svg, got picture.gif"),
        ("--rate 5 --out calls.txt/picture.png", "--out: calls.txt is no folder"),
        ("--rate 5 --out calls.txt/deep/picture.png", "--out: calls.txt is no folder"),
        ("--rate 5 --out taken.png", "--out: taken.png is a folder"),
        ("--rate 5 --policy fastesst", "policy (--policy): unknown policy 'fastesst'"),
        ("--rate 5 --policy fixed:best", "--policy: 'best' is not loaded; loaded are quick, better"),
        ("--rate 5 --variants quick,best", "sign: no variant 'best', known are quick, better"),
        ("--rate 5 --stages maybe", "stages (--stages): expected 'auto', 'on' or 'off', got 'maybe'"),
        ("--rate 5 --machine nothing.json", "nothing.json: cannot be read as results with a simulated_machine"),
    ],
)
def test_wrong_flags_are_one_line(capsys: pytest.CaptureFixture[str], models: Path, flags: str, says: str) -> None:
    """Exit code 2 and one line that names the flag, before anything is simulated, and nothing is made."""
    Path("calls.txt").touch()
    Path("taken.png").mkdir()
    code, out, err = simulated(capsys, models, *flags.split())
    assert (2, "") == (code, out)
    (line,) = [line for line in err if line.startswith("pareto: ")]
    assert line.startswith(f"pareto: {says}")
    assert {Path("calls.txt"), Path("taken.png")} == set(Path().iterdir())


def test_an_unknown_family_is_named(capsys: pytest.CaptureFixture[str], models: Path) -> None:
    """A fault of the repository ends with exit code 1."""
    code = cli.run(["simulate", "digits", "--models", str(models), "--rate", "5"])
    (line,) = capsys.readouterr().err.splitlines()
    assert 1 == code
    assert "digits" in line
