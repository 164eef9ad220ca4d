"""What replicas follow: under load, the accuracy deficit tells what latency does not."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from loadtests.machine import Machine
from loadtests.simulator import simulate
from loadtests.synthetic import synthetic
from loadtests.traces import Shape, arrivals
from loadtests.workload import SloMix, Workload
from router.policies import policy_named
from router.words import Escalation

CAPACITY = 100.0
"""Rows a second that one slot answers with the best variant, one by one."""


class Seen(NamedTuple):
    """Of one load: the recorded series as Prometheus would see it, and what else could be scaled on."""

    deficit: float
    in_time: float
    no_time: float


def seen(policy: str, load: float) -> Seen:
    """Ten seconds of one slot under a load, in shares of what it can answer with the best variant."""
    family, samples = synthetic()
    rng = np.random.default_rng(1)
    arriving_s = arrivals("poisson", load * CAPACITY, 10.0, Shape(), rng)
    workload = Workload.draw(arriving_s, SloMix.parse("50"), len(samples.label), rng)
    run = simulate(workload, family, samples, policy_named(policy), Machine(slots=1), np.random.default_rng(2))
    answered = [record for record in run.records if record.variant]
    qualities = [variant.quality for variant in family.variants]
    served = sum(record.quality for record in answered) / len(answered)
    return Seen(
        (max(qualities) - served) / (max(qualities) - min(qualities)),
        sum(record.slo_met for record in answered) / len(run.records),
        sum(record.escalation is Escalation.NO_TIME for record in answered) / len(answered),
    )


@pytest.mark.parametrize("policy", ["casc", "slack-fraction"])
def test_the_deficit_rises_with_the_load_while_all_is_in_time(policy: str) -> None:
    """Far under the target of the autoscalers (0.3) at half load, over it before and after the machine is full."""
    half, full, over = (seen(policy, load) for load in (0.5, 1.6, 3.2))
    assert half.deficit < 0.1
    assert 0.25 < full.deficit < over.deficit
    assert [True, True, True] == [one.in_time > 0.99 for one in (half, full, over)]


def test_answers_that_had_no_time_do_not_tell() -> None:
    """Where the machine is full, `casc` finds a better answer not worth its time, long before there is none for it."""
    assert seen("casc", 3.2).no_time < 0.05
