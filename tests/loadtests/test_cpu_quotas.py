"""Quotas of processor time: what runs in one has no more, and nothing is left of it afterwards."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from loadtests import cpu_quotas
from loadtests.cpu_quotas import QuotaError

SPINS = "import time\nwhile time.process_time() < 0.1: pass"


@pytest.fixture
def whole() -> None:
    """Only where there are quotas."""
    try:
        with cpu_quotas.quotas(1, 0.5):
            pass
    except QuotaError as error:
        pytest.skip(str(error))


def ran(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def group_of(enter: tuple[str, ...]) -> Path:
    """The group that a command starts its arguments in."""
    return Path(enter[2].split("> ")[1].split("/cgroup.procs")[0])


@pytest.mark.usefixtures("whole")
def test_what_runs_in_a_quota_waits_once_it_has_had_its_share() -> None:
    """Each group has processes of its own, and the kernel counts the periods in which they had to wait."""
    with cpu_quotas.quotas(2, 0.1) as enters:
        first, second = (ran(*enter, "cat", "/proc/self/cgroup") for enter in enters)
        group = group_of(enters[0])
        assert (1, 0) == (first.count(group.name), second.count(group.name))
        ran(*enters[0], "python3", "-c", SPINS)
        counted = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
        assert int(counted["nr_throttled"]) > 0
    assert not group.exists()


@pytest.mark.usefixtures("whole")
def test_what_still_runs_in_a_quota_ends_with_it() -> None:
    """A group with something in it cannot be removed, and would stay behind."""
    with cpu_quotas.quotas(1, 0.5) as (enter,):
        group = group_of(enter)
        command = [*enter, "sh", "-c", "echo runs; exec cat"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"runs\n"
    with process:
        left = group.exists()
        if left:
            process.kill()
        assert -signal.SIGKILL == process.wait(60)
    assert not left


@pytest.mark.usefixtures("whole")
def test_a_quota_that_cannot_be_had_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without control groups, and where the kernel refuses the share."""
    with pytest.raises(QuotaError, match="Invalid argument"), cpu_quotas.quotas(1, 0.01):
        pass
    monkeypatch.setattr(cpu_quotas, "ROOT", tmp_path)
    with pytest.raises(QuotaError, match="no control groups for processors"), cpu_quotas.quotas(1, 0.5):
        pass


@pytest.mark.usefixtures("whole")
def test_an_error_of_the_block_is_its_own() -> None:
    """It is not taken for one of the quotas."""
    with pytest.raises(FileNotFoundError), cpu_quotas.quotas(1, 0.5):
        raise FileNotFoundError
