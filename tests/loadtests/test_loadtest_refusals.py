"""What `pareto loadtest` cannot do is one line that says what, where and what to do, before anything is sent."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from loadtests.servers import Server, free_port
from service import cli
from tests.loadtests.asking import command

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
