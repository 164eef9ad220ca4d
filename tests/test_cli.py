"""The console script: what each command prints, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from loadtests.servers import free_port
from service import SERVER_NAME, __version__, cli
from service.neighbour import gateway_at
from service.settings import Settings
from service.supervision import server_environment
from tests.service.families import sign_model, write_family
from variants.fingerprint import available_cores
from variants.repository import Repository, RepositoryError

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 60.0


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A working directory without models and settings."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one family, `sign`, of two variants."""
    return made(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def corrupt(tmp_path: Path) -> Path:
    """The same family, every model file of it damaged."""
    root = made(tmp_path / "corrupt")
    for model in root.rglob("model.onnx"):
        model.write_bytes(model.read_bytes()[:-1])
    return root


def made(root: Path) -> Path:
    write_family(Repository(root), "sign", {"quick": (sign_model(), 0.8), "better": (sign_model(1), 0.9)})
    return root


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    """Exit code and the lines on the error output of a command that says nothing else."""
    code = cli.run(arguments)
    printed = capsys.readouterr()
    assert printed.out == ""
    return code, printed.err.splitlines()


@contextmanager
def serving(models: Path, port: int) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """`pareto serve` in a process of its own, and the lines it had printed when it was ready."""
    command = [sys.executable, "-m", "service.cli", "serve", "--models", str(models), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.strip().startswith("stop"):
                break
        yield process, lines
    finally:
        process.terminate()
        process.wait(LIMIT_S)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`pareto --version` prints one line."""
    assert 0 == cli.run(["--version"])
    assert f"pareto {__version__}\n" == capsys.readouterr().out


def test_the_command_alone_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`pareto` without a command lists the commands, and names no fault."""
    assert 2 == cli.run([])
    captured = capsys.readouterr()
    assert "doctor" in captured.out + captured.err
    assert "pareto:" not in captured.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["srve"], "pareto: No such command 'srve'. Did you mean 'serve'? (see pareto --help)"),
        (["serve", "--prot", "1"], "pareto: No such option: --prot"),
        (["serve", "--port", "http"], "pareto: Invalid value for '--port' / '-p'"),
        (["serve", "--port", "70000"], "pareto: port (--port): expected less than or equal to 65535, got 70000"),
        (["serve", "--config", "none.toml"], "pareto: none.toml: cannot read the settings file"),
        (["profile"], "pareto: Missing argument 'FAMILY'"),
        (["build", "digits", "--recipes", "int8"], "pareto: No such option: --recipes"),
        (["search", "fashion", "--trials", "0"], "pareto: Invalid value for '--trials'"),
        (["search", "fashion", "--rung", "ladder"], "pareto: --rung ladder: there is none; rungs: linear, mlp, "),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """Unknown commands, options and values are named on the error output."""
    code, (line,) = failing(capsys, *arguments)
    assert 2 == code
    assert line.startswith(said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["build", "cats"], "pareto: 'cats' is not a family"),
        (["build", "cats.py"], "no such file"),
        (["search", "sentiment"], "pareto: 'sentiment' has no architectures to search; families with some: fashion"),
        (["profile", "cats"], "pareto: models: no family 'cats' here (families: none); `pareto build` or "),
        (["frontier"], "pareto: models: holds no family; `pareto build` builds one"),
        (["serve"], "pareto: models: holds no family to serve; build one with `pareto build`"),
    ],
)
def test_what_is_missing_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """Unknown families and empty repositories are named, with what to do."""
    port = ["--port", str(free_port())] if arguments[0] == "serve" else []
    code, (line,) = failing(capsys, *arguments, *port)
    assert 1 == code
    assert said in line


def test_the_unforeseen_has_no_traceback_unless_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sound: Path
) -> None:
    """A fault of the gateway itself is one line, too; `PARETO_DEBUG=1` shows where it happened."""

    def breaks(*arguments: object) -> None:
        raise ZeroDivisionError("no such\nluck")

    monkeypatch.setattr(Repository, "open", breaks)
    code, (line,) = failing(capsys, "profile", "sign", "--models", str(sound))
    expected = "pareto: internal error: ZeroDivisionError: no such luck (PARETO_DEBUG=1 shows where)"
    assert (1, expected) == (code, line)
    monkeypatch.setenv("PARETO_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.run(["profile", "sign", "--models", str(sound)])


def test_an_interrupt_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sound: Path) -> None:
    """Ctrl-C ends a command with one line and the exit code that shells expect."""

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Repository, "open", interrupted)
    assert (130, ["pareto: interrupted"]) == failing(capsys, "profile", "sign", "--models", str(sound))


def test_what_is_built_is_not_built_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`pareto build` leaves a family alone that the repository has, unless forced."""
    write_family(Repository(tmp_path), "digits", {"only": (sign_model(), 0.8)})
    before = Repository(tmp_path).revisions("digits")
    code, (line,) = failing(capsys, "build", "digits", "--models", str(tmp_path))
    assert (0, before) == (code, Repository(tmp_path).revisions("digits"))
    assert line.startswith("digits: is built already")


def test_frontier_prints_and_draws(capsys: pytest.CaptureFixture[str], sound: Path, tmp_path: Path) -> None:
    """The table has every variant with its error; the pictures are a PNG and an SVG, the report one HTML file."""
    arguments = ["frontier", "sign", "--models", str(sound), "--out", str(tmp_path / "pictures")]
    assert 0 == cli.run([*arguments, "--watts-per-core", "7"])
    printed = capsys.readouterr()
    assert "measuring memory and processor seconds" in printed.err
    assert "measuring sign: memory and processor seconds, 100% done" in printed.err
    table = printed.out
    assert "80.0 ± 1.0" in table
    assert "90.0 ± 1.0" in table
    assert b"\x89PNG" == (tmp_path / "pictures" / "sign-frontier.png").read_bytes()[:4]
    assert "<svg" in (tmp_path / "pictures" / "sign-frontier.svg").read_text(encoding="utf-8")
    report = (tmp_path / "pictures" / "sign-frontier.html").read_text(encoding="utf-8")
    assert "accuracy over memory" in report
    assert "times 7 watts" in report
    assert 0 == cli.run(arguments)
    assert "measuring" not in capsys.readouterr().err


def test_frontier_of_a_repository_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is measured and cannot be kept is said, and the report is written all the same; so is a profile's table."""
    models = made(tmp_path / "models")

    def refuses(*arguments: object) -> None:
        raise RepositoryError("profiles: cannot be written: Read-only file system")

    monkeypatch.setattr("variants.profiling.save_profile", refuses)
    assert 0 == cli.run(["frontier", "sign", "--models", str(models), "--out", str(tmp_path)])
    assert 2 == capsys.readouterr().err.count("what was measured is not kept: profiles: cannot be written")
    assert (tmp_path / "sign-frontier.html").is_file()
    assert 1 == cli.run(["profile", "sign", "--models", str(models)])
    printed = capsys.readouterr()
    assert "quick" in printed.out
    assert "pareto: profiles: cannot be written" in printed.err


def test_frontier_without_matplotlib(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sound: Path, tmp_path: Path
) -> None:
    """Where nothing can be drawn, the report is written without pictures and says why."""
    monkeypatch.setitem(sys.modules, "variants.plots", None)
    assert 0 == cli.run(["frontier", "sign", "--models", str(sound), "--out", str(tmp_path / "out")])
    assert "no pictures: variants.plots is not installed" in capsys.readouterr().err
    assert ["sign-frontier.html"] == [path.name for path in (tmp_path / "out").iterdir()]
    assert "No pictures" in (tmp_path / "out" / "sign-frontier.html").read_text(encoding="utf-8")


def test_frontier_of_nothing_sound_is_one_line(capsys: pytest.CaptureFixture[str], corrupt: Path) -> None:
    """Where every variant is damaged, each is named, and the command ends with what to do."""
    assert 1 == cli.run(["frontier", "sign", "--models", str(corrupt)])
    *named, last = capsys.readouterr().err.splitlines()
    assert 2 == len(named)
    assert last.endswith("no variant is sound; `pareto build --force` builds the family anew")


def test_frontier_leaves_out_what_is_corrupt(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One damaged variant is named; the others are profiled and shown."""
    model = Repository(made(tmp_path)).open("sign").file("better/model.onnx")
    model.write_bytes(b"")
    assert 0 == cli.run(["frontier", "--models", str(tmp_path), "--out", str(tmp_path)])
    printed = capsys.readouterr()
    assert "sign: better is left out: better/model.onnx: has 0 bytes" in printed.err
    assert "quick" in printed.out
    assert "better" not in printed.out


def test_profile_is_stored_and_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`pareto profile` leaves one file for this machine, prints a row for each variant and recommends slots."""
    folder = Repository(made(tmp_path)).open("sign").path
    assert 0 == cli.run(["profile", "sign", "--models", str(tmp_path)])
    assert 1 == len(list((folder / "profiles").glob("*.json")))
    printed = capsys.readouterr().out
    assert "quick" in printed
    assert "better" in printed
    assert (available_cores() >= 2) == ("threads_per_slot = " in printed)


def test_doctor_finds_a_sound_place_sound(capsys: pytest.CaptureFixture[str], sound: Path) -> None:
    """Exit code 0, no broken thing where everything is in order, and what to do next."""
    assert 0 == cli.run(["doctor", "--models", str(sound), "--port", str(free_port())])
    lines = capsys.readouterr().out.splitlines()
    subjects = [line.split()[:2] for line in lines]
    assert ["ok", "port"] in subjects
    assert lines[-1].startswith("nothing is broken")
    assert lines[-1].endswith(": next `make serve` in a checkout, or `pareto serve`")
    assert [] == [subject for subject in subjects if subject[0] == "broken"]


def test_doctor_names_what_is_broken(capsys: pytest.CaptureFixture[str], corrupt: Path) -> None:
    """Every damaged file and a taken port are findings, and the exit code says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert 1 == cli.run(["doctor", "--models", str(corrupt), "--port", str(port)])
    printed = capsys.readouterr()
    broken = [line for line in printed.out.splitlines() if line.startswith("broken")]
    assert ["sign", "sign", "port"] == [line.split()[1] for line in broken]
    assert "pareto: 3 things are broken here, see above\n" == printed.err


def test_doctor_knows_a_gateway_that_runs(capsys: pytest.CaptureFixture[str], sound: Path) -> None:
    """A port that a gateway holds is no broken thing: the line says which one, and whose process it is."""
    port = free_port()
    with serving(sound, port) as (process, _):
        assert 0 == cli.run(["doctor", "--models", str(sound), "--port", str(port)])
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.split()[1] == "port"]
        owners = {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
    assert line.startswith("note ")
    assert f"{SERVER_NAME} {__version__} serves at {port} on 127.0.0.1 already, run by " in line
    assert line.endswith("; a second one needs another --port")
    assert int(line.rpartition("(process ")[2].partition(")")[0]) in owners


def test_something_else_at_the_port_is_no_gateway() -> None:
    """What answers HTTP with another name, or not at all, is not taken for one."""
    answers = (b'HTTP/1.0 200 OK\r\n\r\n{"name": "other", "version": "1"}', b"HTTP/1.0 200 OK\r\n\r\n[]", b"none")
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        for answer in answers:
            replied = pool.submit(_reply_once, server, answer)
            assert gateway_at("127.0.0.1", server.getsockname()[1]) is None
            replied.result(LIMIT_S)
    assert gateway_at("127.0.0.1", free_port()) is None


def _reply_once(server: socket.socket, answer: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(1024)
        connection.sendall(answer)


def test_serve_names_a_port_that_is_taken(capsys: pytest.CaptureFixture[str], sound: Path) -> None:
    """The line has the port and who listens there."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, (line,) = failing(capsys, "serve", "--models", str(sound), "--port", str(port))
    assert 1 == code
    assert line.startswith(f"pareto: port {port} on 127.0.0.1 is in use by ")
    assert line.endswith("choose another with --port N, or PORT=N with make")


def test_serve_says_when_nothing_can_be_served(corrupt: Path) -> None:
    """Where every variant is refused, the command ends with one line of its own instead of waiting."""
    command = [sys.executable, "-m", "service.cli", "serve", "--models", str(corrupt), "--port", str(free_port())]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    (line,) = (line for line in ended.stderr.splitlines() if line.startswith("pareto: "))
    assert 1 == ended.returncode
    assert line == "pareto: nothing to serve: sign: cannot be loaded, see the log"
    assert "family sign: none of its variants can be loaded" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_until_a_signal(sound: Path, number: int) -> None:
    """The banner's command gets an answer, a signal ends everything, and the exit code is 0."""
    port = free_port()
    with serving(sound, port) as (process, banner):
        told = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in banner if line.startswith("  ")}
        assert f"http://127.0.0.1:{port}" == told["address"]
        answer = subprocess.run(told["try"], shell=True, capture_output=True, text=True, check=True)
        assert "sign" == json.loads(answer.stdout)["model_name"]
        with urlopen(told["metrics"], timeout=LIMIT_S) as metrics:
            assert 200 == metrics.status
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert 0 == process.wait(LIMIT_S)
        assert [] == [child for child in family if child.is_running()]


def test_serve_does_not_announce_what_it_could_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It serves the other families, and says which one is missing."""
    root = made(tmp_path)
    write_family(Repository(root), "aside", {"only": (sign_model(), 0.8)})
    monkeypatch.setenv("PARETO_FAMILIES", '{"aside": {"load": ["none"]}}')
    with serving(root, free_port()) as (_, banner):
        told = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in banner if line.startswith("  ")}
    assert told["ready"].endswith("serving sign")
    assert "aside cannot be loaded: see the log" == told["but"]
    assert "/v2/models/sign/infer" in told["try"]


def test_serve_notices_that_the_server_died(sound: Path) -> None:
    """A server that is killed takes the command with it, and none of its processes stays."""
    with serving(sound, free_port()) as (process, _):
        arbiter, *workers = psutil.Process(process.pid).children(recursive=True)
        arbiter.kill()
        assert 128 + signal.SIGKILL == process.wait(LIMIT_S)
        gone, alive = psutil.wait_procs(workers, LIMIT_S)
        assert [] == alive
        assert len(workers) == len(gone)


def test_the_server_sees_these_settings_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that named settings before are replaced; those that name none pass."""
    monkeypatch.setenv("PARETO_PORT", "1")
    monkeypatch.setenv("PARETO_SLOTS", "9")
    monkeypatch.setenv("PARETO_CACHE", "/cache")
    environment = server_environment(Settings(port=5000))
    assert ("5000", "/cache", None) == tuple(
        environment.get(name) for name in ("PARETO_PORT", "PARETO_CACHE", "PARETO_SLOTS")
    )
