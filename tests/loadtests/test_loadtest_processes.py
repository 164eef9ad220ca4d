"""`pareto loadtest` as several processes: workers, locust's page, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from loadtests.load import Load
from loadtests.servers import ROOT, Server, free_port
from loadtests.workload import SloMix
from service import cli
from tests.loadtests.asking import PASSED_OR_INVALID, asking, command, started
from tests.loadtests.judged import answered
from tests.service.conftest import eventually

pytestmark = pytest.mark.usefixtures("elsewhere")
START_S = 120.0


def test_two_workers_send_one_load(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Real processes of locust share the requests; what they hand in is as much as one would."""
    flags = ("--family", "tiny", "--rate", "100", "--duration", "1", "--slo-mix", "2000", "--seed", "5")
    code = cli.run(command(server, *flags, "--workers", "2"))
    _, err = capsys.readouterr()
    assert code in PASSED_OR_INVALID, err
    values = json.loads(Path("loadtest.json").read_text())
    (run,) = values["runs"]
    sent = asking(server, slo_ms="2000").draw(Load(SloMix.parse("2000"), 1.0, 100.0), 5)
    assert len(sent) == run["score"]["arrivals"]
    assert [len(sent) - len(sent) // 2, len(sent) // 2] == [one["requests"] for one in run["generators"]]
    assert {"answered": 1.0} == {fate: share for fate, share in run["score"]["fates"].items() if share}
    assert answered(asking(server, slo_ms="2000"), sent).digest() == run["workload"], (
        "together they send what one would"
    )


def test_ctrl_c_ends_with_what_there_is(server: Server) -> None:
    """The report of the requests that were sent, exit code 130, and no process left."""
    with started(*command(server, "--family", "tiny", "--rate", "50", "--duration", "600")) as running_test:
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
    with started(*command(server, *flags)) as page:
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


def test_workers_are_only_workers() -> None:
    """Locust's own ways to start a test lead to one line that says how it is done."""
    program = (sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py"), "--headless")
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    assert 2 == done.returncode
    assert "only workers are started like this" in done.stderr
