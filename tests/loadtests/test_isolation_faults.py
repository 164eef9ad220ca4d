"""The benchmark of crashes and hangs, small: a real gateway, and models that really break."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loadtests import servers
from loadtests.isolation_faults import (
    BREAKS,
    Asked,
    Ended,
    from_quarantine,
    plan,
    run,
    settings,
    unanswered,
    write_families,
)
from router.words import Reason
from variants.repository import Repository


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the models break as they do on x86")
def test_each_request_has_its_outcome_and_the_gateway_stays(tmp_path: Path) -> None:
    """Whatever crashes and hangs, nobody is answered by a variant in quarantine, and the process is the same."""
    repository = Repository(tmp_path)
    asked = plan(families=4, times=2, rate=30.0, spread_s=1.0)
    write_families(repository, asked.hurt)
    with servers.running(servers.gateway(repository.root, settings())) as server:
        report = run(server, asked)
    assert (True, 8) == (report.is_sound, report.injected), report


def test_sound_requests_without_an_answer_are_found() -> None:
    """A status of 500 or 503, and none at all, are counted; a request that breaks its variants may fail."""
    statuses = [(None, 200), (None, 503), (None, 500), (None, 0), (Reason.CRASHED, 500)]
    assert 3 == unanswered([Ended(Asked(0.0, "f", fault), 0.0, 0.1, status, "") for fault, status in statuses])


def test_answers_from_quarantine_are_found() -> None:
    """One that was asked for after the fault had its end, and that came before the spell could be over."""
    fault = Ended(Asked(1.0, "f", Reason.CRASHED), 1.0, 1.1, 200, "saves")

    def answer(sent_s: float, ended_s: float, variant: str = BREAKS, family: str = "f") -> Ended:
        return Ended(Asked(sent_s, family), sent_s, ended_s, 200, variant)

    wrong = answer(1.2, 1.9)
    fine = [answer(1.05, 1.9), answer(1.2, 2.1), answer(1.2, 1.9, "saves"), answer(1.2, 1.9, family="g")]
    assert 1 == from_quarantine([fault, wrong, *fine])
    assert 0 == from_quarantine([fault, *fine])
