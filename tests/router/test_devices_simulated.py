"""Slots of several devices under simulated load, with every policy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loadtests.machine import Machine
from loadtests.simulator import Simulation, simulate
from loadtests.traces import Shape, arrivals
from loadtests.workload import SloMix, Workload
from router.family import Family
from router.limits import Limits
from router.policies import policy_named
from tests import scripted
from tests.router.wide_and_narrow import NAMED, two


def run(family: Family, machine: Machine, policy: str, seed: int, rate: float) -> Simulation:
    rng = np.random.default_rng([seed, 1])
    arrival_s = np.append(0.0, arrivals("gamma", rate, 0.6, Shape(), rng))
    load = Workload.draw(arrival_s, SloMix.parse("15:0.3,40:0.4,120:0.3"), len(scripted.SAMPLES), rng)
    rule, limits = policy_named(policy), Limits(ahead=0.7, transit_s=0.002)
    return simulate(load, family, scripted.SAMPLES, rule, machine, np.random.default_rng(seed), limits)


@pytest.mark.parametrize("policy", NAMED)
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_slots_that_are_alike_are_decided_on_as_if_there_were_no_devices(policy: str, slots: int) -> None:
    """The same batches and outcomes to the last bit, whatever the one device is called and known of elsewhere."""
    for seed in range(3):
        machine = Machine(slots, noise=0.3, request_s=2e-4, batch_s=3e-4)
        named = replace(machine, devices=(("only", 2),) * slots)
        plain = run(scripted.FAMILY, machine, policy, seed, 500.0)
        other = run(two(scripted.FAMILY, 3.0), named, policy, seed, 500.0)
        assert plain.dispatches == tuple(d._replace(device="cpu") for d in other.dispatches)
        assert [r._replace(device="") for r in plain.records] == [r._replace(device="") for r in other.records]


@pytest.mark.parametrize("policy", NAMED)
def test_a_narrow_device_is_used_and_never_loses_a_row(policy: str) -> None:
    """Whatever the rule: each request ends once, and under load both devices work."""
    machine = Machine(2, noise=0.1, devices=(("wide", 2), ("narrow", 1)), contention=0.2)
    ran = run(two(scripted.FAMILY, 2.0), machine, policy, 7, 600.0)
    assert list(range(len(ran.results.fate))) == sorted(record.request_id for record in ran.records)
    assert {"wide", "narrow"} == {dispatch.device for dispatch in ran.dispatches}
    answered = [record for record in ran.records if record.variant]
    assert {record.device for record in answered} <= {"wide", "narrow"}
