"""Canaries: who tries a new revision, and that a good one is promoted and a bad one is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.canary import Canary, SequentialTest, Trial, Verdict

TRIAL = Trial(answers=500)
NAMES = st.text(max_size=20)


def tried(trial: Trial, disagreement: float, slowdown: float, seed: int, requests: int = 6000) -> Canary:
    """A canary after requests of which each is answered by both, the old one in an exponential time of mean 10 ms."""
    random = np.random.default_rng(seed)
    canary = Canary(trial)
    for _ in range(requests):
        canary.answered(False, float(random.exponential(0.01)))
        canary.answered(True, float(random.exponential(0.01 * slowdown)))
        canary.compared(bool(random.random() >= disagreement))
    return canary


@given(NAMES, st.floats(0.01, 0.98), st.floats(0.01, 0.98))
def test_a_name_stays_on_its_side(name: str, one: float, other: float) -> None:
    """Who tries the new revision at some share tries it at every larger one, each time it asks."""
    less, more = (Canary(Trial(share=share)) for share in sorted((one, other)))
    assert less.takes(name) == less.takes(name)
    assert less.takes(name) <= more.takes(name)


def test_the_share_is_what_was_asked_for() -> None:
    """Of twenty thousand names one in ten is drawn."""
    canary = Canary(Trial(share=0.1))
    assert sum(canary.takes(f"caller-{number}") for number in range(20_000)) == pytest.approx(2000, abs=150)


@pytest.mark.parametrize("seed", range(8))
def test_a_good_revision_is_promoted(seed: int) -> None:
    """It disagrees no more than it may and is as quick: after the promotion it answers all."""
    canary = tried(TRIAL, 0.05, 1.0, seed)
    assert (canary.verdict, canary.takes("anybody")) == (Verdict.PROMOTED, True)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("disagreement", "slowdown", "verdict"), [(0.12, 1.0, Verdict.DISAGREES), (0.05, 2.0, Verdict.SLOW)]
)
def test_a_bad_revision_is_rolled_back(disagreement: float, slowdown: float, verdict: Verdict, seed: int) -> None:
    """One that answers differently, or twice as slowly, answers nobody any more."""
    canary = tried(TRIAL, disagreement, slowdown, seed)
    assert (canary.verdict, any(canary.takes(f"caller-{number}") for number in range(200))) == (verdict, False)


def test_harm_that_begins_late_is_found() -> None:
    """A thousand good comparisons do not make up for a hundred bad ones."""
    canary = Canary(Trial(answers=10**6))
    for number in range(1000):
        canary.compared(number % 20 != 0)
    before = canary.verdict
    for number in range(100):
        canary.compared(number % 2 == 0)
    assert (before, canary.verdict) == (Verdict.RUNNING, Verdict.DISAGREES)


def test_a_shadow_answers_nobody() -> None:
    """It gets copies of its share, and the verdict says what would have become of it."""
    trial = Trial(share=0.5, shadow=True, answers=500)
    names = [f"caller-{number}" for number in range(100)]
    fresh = Canary(trial)
    assert 25 < sum(fresh.copies(name) for name in names) < 75
    done = tried(trial, 0.05, 1.0, 0)
    assert done.verdict is Verdict.PROMOTED
    for canary in (fresh, done):
        assert not any(canary.takes(name) for name in names)
    assert not any(done.copies(name) or Canary(TRIAL).copies(name) for name in names)


@given(
    st.lists(st.tuples(st.sampled_from(["agree", "old", "new"]), st.booleans(), st.floats(0.0, 1.0)), max_size=300),
    st.integers(1, 20),
)
def test_a_verdict_is_final(events: list[tuple[str, bool, float]], answers: int) -> None:
    """Whatever happens afterwards; and nothing is promoted that has answered too few."""
    canary, new = Canary(Trial(answers=answers, risk=0.2)), 0
    final: Verdict | None = None
    for kind, flag, seconds in events:
        if kind == "agree":
            canary.compared(flag)
        else:
            new += kind == "new"
            canary.answered(kind == "new", seconds)
        assert final is None or canary.verdict is final
        if canary.verdict is not Verdict.RUNNING:
            final = canary.verdict
            assert final is not Verdict.PROMOTED or new >= answers


@pytest.mark.parametrize(("rate", "wrong"), [(0.05, True), (0.10, False)])
def test_a_sequential_test_errs_as_seldom_as_it_says(rate: float, wrong: bool) -> None:
    """Of five hundred first decisions at each rate at most two in a hundred are wrong, with a risk of one."""
    random = np.random.default_rng(3)
    errors = 0
    for _ in range(500):
        test = SequentialTest(0.05, 0.10, 0.01)
        harm = False
        while not (harm or test.passed):
            harm = test.observe(bool(random.random() < rate))
        errors += harm is wrong
    assert errors <= 10


@pytest.mark.parametrize(
    "rules",
    [{"share": 0.0}, {"risk": 1.0}, {"disagreement": 0.6, "regression": 0.4}, {"slowdown": 20.0}, {"answers": 0}],
)
def test_a_trial_that_cannot_be_decided_is_refused(rules: dict[str, float]) -> None:
    """Shares are fractions, and what counts as a regression is possible."""
    with pytest.raises(ValueError, match=next(iter(rules))):
        Trial(**rules)  # type: ignore[arg-type]  # what must fail


@pytest.mark.parametrize(
    ("waited_s", "known", "verdict"),
    [(1.0, True, Verdict.SLOW), (0.0, True, Verdict.RUNNING), (1.0, False, Verdict.RUNNING)],
)
def test_what_nobody_waited_for_is_slow_where_that_was_long(waited_s: float, known: bool, verdict: Verdict) -> None:
    """A request that its caller gave up says something only beyond the old one's usual worst, where that is known."""
    canary = Canary(TRIAL)
    for _ in range(64 if known else 0):
        canary.answered(False, 0.01)
    for number in range(100):
        canary.gave_up(True, waited_s + 1e-6 * number)
    assert canary.verdict is verdict


def test_what_nobody_waited_for_at_either_side_is_nobody_s_fault() -> None:
    """Where callers give up on both revisions alike, the new one is not the slow one."""
    canary = Canary(TRIAL)
    for _ in range(64):
        canary.answered(False, 0.01)
    for number in range(200):
        canary.gave_up(True, 1.0 + 1e-6 * number)
        canary.gave_up(False, 1.0)
    assert canary.verdict is Verdict.RUNNING


def test_what_is_grossly_slow_is_found_without_the_old_one() -> None:
    """Its callers have gone, say, and nothing is there to compare with; three times slower may be the machine."""
    for times, verdict in ((10.0, Verdict.SLOW), (3.0, Verdict.RUNNING)):
        canary = Canary(TRIAL)
        for _ in range(100):
            canary.answered(False, 0.01)
        for number in range(7):
            canary.answered(True, times * 0.01 + 1e-6 * number)
        assert (verdict, 0) == (canary.verdict, canary.pairs)


def test_what_befalls_a_batch_counts_once() -> None:
    """Its answers take alike: neither a large one nor a stall of the machine in which both have one is a verdict."""
    for times in (2.0, 100.0):
        canary = Canary(TRIAL)
        for _ in range(64):
            canary.answered(False, 0.01)
        for _ in range(3):
            for side in (True, False):
                for _ in range(32):
                    canary.answered(side, times * 0.01 if side else 0.01)
        assert (Verdict.RUNNING, 3) == (canary.verdict, canary.pairs)


def test_the_first_answers_of_runs_are_pairs() -> None:
    """One of a run of the new one's, one of the run of the old one's that follows."""
    canary = Canary(TRIAL)
    for _ in range(64):
        canary.answered(False, 0.01)
    for run, pairs in (("nn", 0), ("ooo", 1), ("n", 1), ("o", 2), ("nnn", 2), ("o", 3), ("n", 3), ("oo", 4)):
        for side in run:
            canary.answered(side == "n", 0.01)
        assert pairs == canary.pairs


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.95])
@pytest.mark.parametrize("pace", ["slower for good", "slower step by step", "in spells", "after a change"])
def test_a_machine_that_gets_slower_rolls_nothing_back(pace: str, share: float) -> None:
    """Of forty revisions as good as the old one, all but one at most are spared, whatever the machine does to both.

    The last one takes half as long again for what comes first after a change from one revision to the other.
    """
    blamed = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        canary, slow, left, before = Canary(Trial(share=share, answers=10**6)), 1.0, 400.0, False
        for number in range(4000):
            left -= 1
            new = bool(random.random() < share)
            if pace == "slower for good":
                slow = 2.0 if number > 1000 else 1.0
            elif pace == "slower step by step":
                slow = 1.25 ** (number // 700)
            elif pace == "after a change":
                slow, before = 1.5 if new != before else 1.0, new
            elif left <= 0:
                slow, left = (2.5, random.exponential(60)) if slow == 1.0 else (1.0, random.exponential(400))
            canary.answered(new, slow * float(random.lognormal(-4.6, 0.3)))
        blamed += canary.verdict is Verdict.SLOW
    assert blamed <= 1
