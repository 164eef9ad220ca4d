"""What is learnt of each device, and how fast one is against another."""

from __future__ import annotations

import pytest

from router.contract import Slot
from router.devices import of_device, speeds
from router.latency import LatencyModel
from router.slots import Slots
from router.view import Kinds
from tests.queued import lane, view
from tests.router.wide_and_narrow import SLOTS, TWO, replace_latency


@pytest.mark.parametrize(("free", "busy"), [((0, 2), 1), ((0, 1), 2)])
def test_company_is_planned_for_as_it_is_learnt(free: tuple[int, int], busy: int) -> None:
    """A narrow slot that starts beside a busy one of its kind and a free wide one: one of three threads."""
    kinds = Kinds.of((*SLOTS, Slot(2, "narrow", 1)), {"wide": 1.0, "narrow": 0.5})
    model = LatencyModel(TWO, 1.0)
    seen = view(lane([0.1])._replace(family=TWO, latency=model))
    seen = seen._replace(free_slots=free, busy_slots=(busy,), busy_until_s=(0.01,), kinds=kinds)
    met: list[float] = []
    for step in range(200):
        narrow = model.on("narrow")
        narrow.observe(2, 1, 0, 0.03 if step % 2 else 0.02, 0.03 if step % 2 else 0.02, step, crowd=step % 2 / 3)
    for busy_until_s in (0.01, -0.01):
        of_device(seen._replace(busy_until_s=(busy_until_s,)), kinds, "narrow", 0.0)
        met.append(model.on("narrow").planned_run_s(2, 1, 0))
    model.on("narrow").meet(kinds.crowd(free[1], [busy]))
    assert [model.on("narrow").planned_run_s(2, 1, 0)] * 2 == met
    model.on("narrow").meet(0.0)
    assert met[0] > model.on("narrow").planned_run_s(2, 1, 0)


def test_what_is_learnt_of_one_device_does_not_touch_another() -> None:
    """Batches of the narrow device take three times as long: the wide one is planned as before."""
    model = LatencyModel(TWO, 1.0)
    narrow = model.on("narrow")
    before_s = model.planned_run_s(2, 1, 0), narrow.planned_run_s(2, 1, 0)
    for step in range(200):
        narrow.observe(2, 1, 0, 0.06, 0.06, step * 0.06)
    assert before_s[0] == model.planned_run_s(2, 1, 0)
    assert pytest.approx(3.0, rel=0.05) == narrow.planned_run_s(2, 1, 0) / before_s[1]


def test_how_rows_come_is_learnt_from_the_batches_of_all_devices() -> None:
    """The gate asks the family's first model, wherever its rows are answered one by one."""
    model = LatencyModel(TWO, 1.0)
    narrow = model.on("narrow")
    alone_s, full_s = narrow.median_s(2, 1, 0), narrow.full_row_s(2, 0)
    for step in range(100):
        narrow.observe(2, 1, 0, alone_s, 2.0 * alone_s, step)
        for each in (model, narrow):
            each.overhead_s = 0.0
    assert pytest.approx(2.0 * alone_s / full_s, rel=0.05) == model.stretch
    assert 1.0 == narrow.stretch


def test_what_a_batch_costs_beside_the_model_is_learnt_by_all_devices() -> None:
    """There is one driver, whose event loop hands batches to all of them."""
    model = LatencyModel(TWO, 1.0)
    for step in range(200):
        model.on("narrow").observe(2, 1, 0, 0.02, 0.0205, step * 0.06)
    assert pytest.approx(0.0005, rel=0.05) == model.overhead_s
    assert model.overhead_s == model.on("narrow").overhead_s


def test_beliefs_of_an_idle_device_fade_while_another_runs() -> None:
    """A device that nobody uses because it was slow is tried again."""
    model = LatencyModel(TWO, 1.0)
    for step in range(200):
        model.on("narrow").observe(2, 1, 0, 0.06, 0.06, step * 0.06)
    for step in range(20):
        model.observe(2, 1, 0, 0.01, 0.01, 20.0 + step)
        model.relax_idle(20.0 + step, ["wide"])
    assert pytest.approx(1.0, abs=0.01) == model.on("narrow").correction(2)


def test_a_device_that_a_family_does_not_know_is_like_the_first() -> None:
    """There is nothing better to believe."""
    model = LatencyModel(TWO, 1.0)
    assert model is model.on("other")
    assert 1.0 == model.speed("other")


def test_speeds_are_against_the_first_device() -> None:
    """Half as fast on the narrow one; nothing is to be told apart where all slots are of one device."""
    assert {"wide": 1.0, "narrow": pytest.approx(0.5)} == speeds(SLOTS, [LatencyModel(TWO)])
    assert speeds([Slot(0), Slot(1)], [LatencyModel(TWO)]) is None


def test_slots_in_service_count_by_their_speed() -> None:
    """Whoever is judged at arrival is judged by the time that all devices have, in seconds of the first."""
    slots = Slots(SLOTS, speeds={"wide": 1.0, "narrow": 0.5})
    assert 1.5 == slots.count


def test_a_rule_sees_one_device_and_the_others_as_parts_of_it() -> None:
    """Two seconds of the narrow one are one of the wide one, and the other way round."""
    kinds = Kinds.of(SLOTS, {"wide": 1.0, "narrow": 0.5})
    rows = replace_latency(lane([0.1]))
    seen = view(rows)._replace(free_slots=(0, 1), kinds=kinds)
    wide, narrow = (of_device(seen, kinds, name, 0.0) for name in ("wide", "narrow"))
    assert ((0,), (0.5,), 1.5) == (wide.free_slots, wide.others, wide.slots)
    assert ((1,), (2.0,), 3.0) == (narrow.free_slots, narrow.others, narrow.slots)
    assert 0.020 == pytest.approx(narrow.lanes[0].latency.planned_run_s(2, 1, 0))
