"""What `pareto loadtest` cannot do is one line that says what, where and what to do, before anything is sent."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from loadtests.harness.profiles import DURATIONS_S
from loadtests.harness.search import SearchOptions
from loadtests.harness.soak import SoakOptions
from loadtests.harness.spike import SpikeOptions
from loadtests.harness.target import Target
from loadtests.harness.verdict import Wanted
from loadtests.servers import Server, free_port
from service import cli
from service.commands import loadtest_options as options
from service.commands.loadtest import loadtest
from tests.loadtests.asking import command
from tests.loadtests.scripted import scripted

_OF_SPIKE = {"factor": "burst", "burst_s": "burst_duration", "recovery_s": "recovery"}
pytestmark = pytest.mark.usefixtures("elsewhere")


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
        ("--rate 5 --enough 9", 2, "--enough: --profile steady does not look at it, but search"),
        ("--rate 5 --growth 0.2", 2, "--growth: --profile steady does not look at it, but soak"),
        ("--rate 5 --profile spike --p99-ms 9", 2, "--p99-ms: --profile spike does not look at it, but steady, soak"),
        ("--profile search --failed 0", 2, "--failed: --profile search does not look at it"),
        ("--profile search --effective-accuracy 0.9", 2, "--effective-accuracy: --profile search does not look at it"),
        ("--profile smoke --rate 5", 2, "--rate: --profile smoke does not look at it"),
        ("--profile smoke --attainment 0.9", 2, "--attainment: --profile smoke does not look at it"),
        ("--rate 5 --family tiny --rows bare.npz --effective-accuracy 0.9", 2, "the rows of tiny have no labels"),
        ("--rate 5 --out .", 2, "--out: expected a name for NAME.json and NAME.html, got '.'"),
        ("--rate 5 --out /", 2, "--out: expected a name"),
        ("--rate 5 --out x/..", 2, "--out: expected a name"),
        ("--rate 5 --out taken", 2, "--out: taken.json is a folder"),
        ("--rate 5 --out file/name", 2, "--out: file is no folder"),
        ("--models nowhere --family tiny --rate 5", 1, "no family 'tiny' here"),
    ],
)
def test_what_cannot_be_tested_is_one_line(
    server: Server, capsys: pytest.CaptureFixture[str], flags: str, code: int, says: str
) -> None:
    """The exit code tells wrong flags from a gateway that does not answer as it should."""
    np.savez("bare.npz", x=np.zeros((2, 4)))
    Path("taken.json").mkdir()
    Path("file").touch()
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
        ("127.0.0.1:{free}", 1, "no gateway at http://127.0.0.1:{free}: "),
        ("127.0.0.1:http", 2, "URL: expected http://HOST:PORT"),
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


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"<!doctype html>\n<html><title>404</title></html>", "answers 404, expected 200; a page for browsers answers"),
        (b'{"error": "no such path"}', 'answers 404, expected 200: {"error": "no such path"}'),
        (b"", "answers 404, expected 200"),
    ],
)
def test_what_is_no_gateway_is_told_without_its_page(
    capsys: pytest.CaptureFixture[str], body: bytes, says: str
) -> None:
    """One line says what answers there: words are repeated, HTML is not."""
    answer = b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with scripted([answer]) as server:
        assert 1 == cli.run(["loadtest", server.url, "--rate", "5"])
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert "<" not in line


def test_memory_that_nobody_tells_cannot_be_judged(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where somebody asks for it; by default a soak says that it did not judge it."""
    monkeypatch.setattr(Target, "resident_bytes", lambda self: None)
    assert 2 == cli.run(command(server, *["--rate", "5", "--profile", "soak", "--growth", "0.1"]))
    (line,) = capsys.readouterr().err.splitlines()
    assert "--growth cannot be judged" in line


def test_what_the_command_says_of_defaults_is_what_profiles_have() -> None:
    """They are written down twice, because the command line is read before numpy is there."""
    assert tuple(DURATIONS_S) == options.PROFILES
    parameters = inspect.signature(loadtest).parameters
    kept = (
        *((Wanted(), name, name) for name in ("attainment", "effective_accuracy", "failed")),
        *((SearchOptions(), name, name) for name in ("precision", "repeats", "enough")),
        *((SoakOptions(), name, name) for name in ("drift", "growth")),
        *((SpikeOptions(), name, flag) for name, flag in _OF_SPIKE.items()),
    )
    for owner, name, flag in kept:
        assert parameters[flag].default == getattr(owner, name), flag
    assert options.USED_BY.keys() <= parameters.keys()


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
