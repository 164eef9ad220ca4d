"""What `pareto doctor` finds, and what is known before anything is served."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from loadtests.servers import free_port
from service import SERVER_NAME, __version__, cli
from service.neighbour import gateway_at
from tests.console import LIMIT_S, ROOT, failing, serving
from tests.service.families import sign_model, write_family
from variants.repository import Repository
from variants.runtimes.table import lack_of

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_doctor_finds_a_sound_place_sound(capsys: pytest.CaptureFixture[str], sound: Path) -> None:
    """Exit code 0, no broken thing where everything is in order, and what to do next."""
    where = ["--models", str(sound), "--port", str(free_port())]
    assert 0 == cli.run(["doctor", *where])
    lines = capsys.readouterr().out.splitlines()
    subjects = [line.split()[:2] for line in lines]
    assert ["ok", "port"] in subjects
    assert lines[-1].startswith("nothing is broken")
    assert lines[-1].endswith(f": next `pareto serve {shlex.join(where)}`")
    assert [] == [subject for subject in subjects if subject[0] == "broken"]


def test_doctor_says_how_to_serve_what_it_looked_at(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, sound: Path
) -> None:
    """The settings file that it was given is in the command; where none was named, the short one will do."""
    shutil.copytree(sound, tmp_path / "models")
    mine = tmp_path / "my own.toml"
    text = f"models = {str(tmp_path / 'models')!r}\nport = {free_port()}\n"
    mine.write_text(text)
    assert 0 == cli.run(["doctor", "--config", str(mine)])
    assert capsys.readouterr().out.splitlines()[-1].endswith(f": next `pareto serve --config {shlex.quote(str(mine))}`")
    Path("pareto.toml").write_text(text)
    assert 0 == cli.run(["doctor"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(": next `make serve` in a checkout, or `pareto serve`")


def test_doctor_tells_devices_apart(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sound: Path
) -> None:
    """With the slots and threads of each; in processes, which of them have models of their own."""
    monkeypatch.setenv("PARETO_DEVICES", '{"narrow": {"slots": 2}, "wide": {"threads": 2}}')
    cli.run(["doctor", "--models", str(sound), "--port", str(free_port())])
    said = {line.split()[1]: line for line in capsys.readouterr().out.splitlines()}
    assert " usable, 1 slot of 2 threads (wide), 2 slots of 1 thread (narrow)" in said["cores"]
    assert said["isolation"].endswith('which starts again; isolation = "processes" costs it its batch')
    monkeypatch.setenv("PARETO_ISOLATION", "processes")
    cli.run(["doctor", "--models", str(sound), "--port", str(free_port())])
    said = {line.split()[1]: line for line in capsys.readouterr().out.splitlines()}
    assert said["isolation"].endswith("opens its models anew: they are in memory once a slot (wide)")


def test_a_memory_budget_that_holds_nothing_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sound: Path
) -> None:
    """By `doctor` before anything is served, and by `serve`, which ends; of one that is enough nothing is."""
    lack = "not even the smallest variant fits of "
    for budget, verdict, lines_with_it in (("60MiB", "broken", 1), ("4GiB", "ok", 0)):
        monkeypatch.setenv("PARETO_MEMORY_BUDGET", budget)
        cli.run(["doctor", "--models", str(sound), "--port", str(free_port())])
        (memory,) = [line for line in capsys.readouterr().out.splitlines() if line.split()[1] == "memory"]
        assert f"memory_budget {budget} is " in memory
        assert (verdict, lines_with_it) == (memory.split()[0], memory.count(f"{lack}sign (takes "))
        if verdict == "ok":
            with serving(sound, free_port()) as (_, lines):
                assert "ready" in {line.split()[0] for line in lines if line.strip()}
                assert lack not in "".join(lines)
        else:
            command = [sys.executable, "-m", "service.cli", "serve", "--models", str(sound), "--port", str(free_port())]
            ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
            (line,) = (line for line in ended.stderr.splitlines() if line.startswith("pareto: "))
            assert 1 == ended.returncode
            assert line.startswith("pareto: nothing to serve: memory_budget leaves ")
            assert f"{lack}1 family: sign (takes " in line


def test_processes_need_more_of_a_memory_budget(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sound: Path
) -> None:
    """What serves one family in threads may be too little for executors that have a process each."""
    told = {}
    for isolation in ("threads", "processes"):
        monkeypatch.setenv("PARETO_ISOLATION", isolation)
        monkeypatch.setenv("PARETO_SLOTS", "2")
        monkeypatch.setenv("PARETO_MEMORY_BUDGET", "200MB")
        cli.run(["doctor", "--models", str(sound), "--port", str(free_port())])
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.split()[1] == "memory"]
        told[isolation] = line.split()[0]
    assert {"threads": "ok", "processes": "broken"} == told


@pytest.mark.skipif(bool(lack_of("openvino")), reason="OpenVINO is not installed")
def test_doctor_knows_what_a_budget_refuses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A variant that is to be loaded and that executors would each open for themselves; without a budget they may."""
    variants = {"plain": (sign_model(), 0.8), "other": (sign_model(1), 0.9)}
    write_family(Repository(tmp_path), "f", variants, runtimes={"other": "openvino"})
    monkeypatch.setenv("PARETO_ISOLATION", "processes")
    monkeypatch.setenv("PARETO_FAMILIES", '{"f": {"load": ["plain", "other"]}}')
    for budget in ("", "4GiB"):
        if budget:
            monkeypatch.setenv("PARETO_MEMORY_BUDGET", budget)
        cli.run(["doctor", "--models", str(tmp_path), "--port", str(free_port())])
        told = [line for line in capsys.readouterr().out.splitlines() if "families.f.load: other is refused" in line]
        assert bool(budget) == any("`processes` do not serve it under a memory_budget" in line for line in told)


def test_doctor_says_for_how_many_threads_there_is_no_profile(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sound: Path
) -> None:
    """A family that was measured with another number has none."""
    monkeypatch.setenv("PARETO_THREADS_PER_SLOT", "2")
    cli.run(["doctor", "--models", str(sound), "--port", str(free_port())])
    assert "; no profile of this machine with 2 threads a batch: a quick one is taken" in capsys.readouterr().out


def test_doctor_names_what_is_broken(capsys: pytest.CaptureFixture[str], corrupt: Path) -> None:
    """Every damaged file and a taken port are findings, and the exit code says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert 1 == cli.run(["doctor", "--models", str(corrupt), "--port", str(port)])
    printed = capsys.readouterr()
    broken = [line for line in printed.out.splitlines() if line.startswith("broken")]
    assert ["sign", "sign", "port"] == [line.split()[1] for line in broken]
    assert "pareto: 3 things are broken here, see above\n" == printed.err


@pytest.mark.parametrize(
    ("variable", "value", "subject", "said"),
    [
        ("SLOT_CORES", "5000", "cores", "slot_cores: core 5000 is not one of the cores this process may use: "),
        (
            "DEVICES",
            '{"far": {"cores": [5000]}}',
            "cores",
            "devices.far.cores: core 5000 is not one this process may use",
        ),
        ("POLICY", "fixed:L9", "policy", "policy 'fixed:L9': no family that is served has a variant 'L9'; there are"),
    ],
)
def test_what_is_not_here_is_known_before_anything_is_served(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    sound: Path,
    variable: str,
    value: str,
    subject: str,
    said: str,
) -> None:
    """`doctor` tells of cores and variants that settings name in vain, and `serve` starts no server."""
    monkeypatch.setenv(f"PARETO_{variable}", value)
    monkeypatch.setattr("service.supervision.SupervisedServer", None)
    where = ["--models", str(sound), "--port", str(free_port())]
    code, (line,) = failing(capsys, "serve", *where)
    assert (code, line.startswith(f"pareto: {said}")) == (2, True)
    assert 1 == cli.run(["doctor", *where])
    (broken,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("broken")]
    assert broken.startswith(f"broken  {subject:<11} {said}")


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
