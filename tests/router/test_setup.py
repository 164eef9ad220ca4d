"""What batches take beside their rows: told apart from how fast a device is, and planned with."""

from __future__ import annotations

import numpy as np
import pytest

from router.family import Family, VariantProfile
from router.latency import LatencyModel, table
from router.pace import FADE_AFTER_S, Pace, Paces
from router.setup import EVERY, LEVELS, Setup, Usual

SINGLE_S, ROW_S = 0.002, 0.001
"""A batch of n rows is profiled to take `SINGLE_S` and (n - 1) times `ROW_S`."""


def model(name: str, paces: Paces, slower: float = 1.0) -> LatencyModel:
    """One variant for batches of up to 16 rows, without a margin."""
    seconds = tuple(slower * (SINGLE_S + ROW_S * (rows - 1)) for rows in (1, 16))
    variant = VariantProfile("only", 0.9, table((1, 16), seconds))
    return LatencyModel(Family(name, (variant,), max_batch=16), 1.0, paces)


def run(
    models: list[LatencyModel], setup: float, pace: float = 1.0, batches: int = 600, sizes: int = 16, noise: float = 0.1
) -> float:
    """Batches of all, of chance sizes, on a device that is slower and brings weights anew; returns when it ends."""
    rng = np.random.default_rng(1)
    for turn in range(batches):
        one = models[turn % len(models)]
        rows = int(rng.integers(1, sizes + 1))
        rows_s, single_s = (one.profiled[0][0][n] for n in (rows, 1))
        one.observe(0, rows, 0, pace * (rows_s + setup * single_s) * rng.lognormal(0.0, noise), 0.0, 0.001 * turn)
    return 0.001 * batches


@pytest.mark.parametrize(("setup", "pace"), [(3.0, 1.0), (3.0, 1.5), (1.0, 0.7), (0.0, 1.5), (0.0, 1.0)])
def test_small_and_large_batches_are_planned_as_they_are(setup: float, pace: float) -> None:
    """Of small models and large ones: what it takes to bring weights is in proportion to a row of theirs."""
    slower = (0.5, 1.0, 2.0)
    paces = Paces()
    models = [model(str(number), paces, times) for number, times in enumerate(slower)]
    run(models, setup, pace)
    for one, times in zip(models, slower, strict=True):
        for rows in (1, 4, 16):
            really_s = pace * times * (SINGLE_S * (1.0 + setup) + ROW_S * (rows - 1))
            assert one.planned_s(0, rows, 0) == pytest.approx(really_s, rel=0.15)


def test_a_family_that_comes_later_knows_it() -> None:
    """It is the device's: one of which nothing has run yet is planned with it."""
    paces = Paces()
    run([model(str(number), paces) for number in range(3)], 3.0)
    new, alone = model("new", paces), model("alone", Paces())
    single, large = (new.planned_s(0, rows, 0) / alone.planned_s(0, rows, 0) for rows in (1, 16))
    assert single > 1.5 * large


def test_batches_that_are_alike_tell_nothing_apart() -> None:
    """Whether it is the device or what they bring, nobody knows: all of it is the device's, as ever."""
    paces = Paces()
    one = model("one", paces)
    run([one], 3.0, sizes=1)
    assert 0.0 == paces.of("").setup.rows
    assert one.planned_s(0, 1, 0) == pytest.approx(4.0 * SINGLE_S, rel=0.2)


@pytest.mark.parametrize("noise", [0.05, 0.2, 0.4])
def test_noise_is_no_setup(noise: float) -> None:
    """A machine that is as profiled is planned for as such."""
    paces = Paces()
    run([model("one", paces)], 0.0, noise=noise, batches=3000)
    assert paces.of("").setup.rows <= 0.5


def test_what_weights_cost_makes_larger_batches_worth_waiting_for() -> None:
    """Rows are cheaper in larger batches then."""
    even = VariantProfile("even", 0.9, table((1, 16), (SINGLE_S, 16 * SINGLE_S)))
    one = LatencyModel(Family("one", (even,), max_batch=16), 1.0)
    assert 1 == one.economical_batch[0][0]
    run([one], 3.0)
    assert one.economical_batch[0][0] >= 8
    assert one.full_row_s(0, 0) == pytest.approx(one.planned_s(0, 16, 0) / 16)


def test_it_is_forgotten_while_nothing_runs() -> None:
    """As all that is believed of a device: what is refused teaches nothing."""
    paces = Paces()
    one = model("one", paces)
    ended_s = run([one], 3.0)
    assert paces.of("").setup.rows > 1.0
    for step in range(200):
        one.relax_idle(ended_s + FADE_AFTER_S + 0.1 * step)
    assert 0.0 == paces.of("").setup.rows
    assert one.planned_s(0, 1, 0) == pytest.approx(SINGLE_S, rel=0.02)


def test_plans_do_not_jump_when_it_moves() -> None:
    """What a step adds to a usual batch, the device's factor has no longer."""
    paces = Paces()
    one = model("one", paces)
    rng = np.random.default_rng(2)
    before_s, moves = one.planned_s(0, 8, 0), 0
    rows = 0.0
    for turn in range(400):
        size = int(rng.integers(1, 17))
        one.observe(0, size, 0, SINGLE_S * 4.0 + ROW_S * (size - 1), 0.0, 0.001 * turn)
        now_s, now_rows = one.planned_s(0, 8, 0), paces.of("").setup.rows
        moves += now_rows != rows
        assert now_s == pytest.approx(before_s, rel=0.15)
        before_s, rows = now_s, now_rows
    assert moves > 2


def test_what_is_believed_too_much_is_unlearnt() -> None:
    """After a thousand batches that took as much longer as six rows."""
    setup, usual = Setup(), Usual()
    rng = np.random.default_rng(3)
    for turn in range(2000):
        single = float(rng.uniform(0.05, 1.0))
        setup.learn(usual, single, 1.0 + (6.0 if turn < 1000 else 0.0) * single)
        assert turn != 999 or setup.rows == LEVELS[-1]
    assert 0.0 == setup.rows


def test_one_whose_profile_is_wrong_is_no_setup() -> None:
    """Its single rows take five times as long as profiled, another one's batches of sixteen what they should."""
    paces = Paces()
    wrong, right = model("wrong", paces), model("right", paces)
    for turn in range(2000):
        wrong.observe(0, 1, 0, 5.0 * SINGLE_S, 0.0, 0.001 * turn)
        right.observe(0, 16, 0, SINGLE_S + 15 * ROW_S, 0.0, 0.001 * turn)
    assert 0.0 == paces.of("").setup.rows


def test_busy_neighbours_are_no_setup() -> None:
    """Where single rows run beside them and large batches mostly alone: what they cost is learnt as what it is."""
    paces = Paces()
    one = model("one", paces)
    one.join((one,))
    rng = np.random.default_rng(4)
    for turn in range(4000):
        rows = 1 if rng.random() < 0.5 else 16
        crowd = float((rng.random() < 0.8) == (rows == 1))
        one.observe(0, rows, 0, (1.0 + crowd) * (SINGLE_S + ROW_S * (rows - 1)), 0.0, 0.001 * turn, crowd=crowd)
    assert 0.0 == paces.of("").setup.rows


def test_a_few_slow_batches_are_no_setup() -> None:
    """As the first ones after a start are."""
    paces = Paces()
    one = model("one", paces)
    for turn in range(EVERY - 1):
        one.observe(0, 1 + 15 * (turn % 2), 0, 3.0 * SINGLE_S, 0.0, 0.001 * turn)
        assert 0.0 == paces.of("").setup.rows


def test_a_step_up_and_down_leaves_the_pace_as_it_was() -> None:
    """Nothing is refused for a belief that came and went."""
    pace, usual = Pace(), Usual()
    rng = np.random.default_rng(5)
    for turn in range(3000):
        single = float(rng.uniform(0.05, 1.0))
        if pace.setup.learn(usual, single, 1.0 + (4.0 if turn < 1000 else 0.0) * single):
            pace.settle()
    assert 0.0 == pace.setup.rows
    assert pace.factor == pytest.approx(1.0, rel=0.25)
