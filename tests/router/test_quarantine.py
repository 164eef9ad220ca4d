"""How long a variant that broke stays away, and what brings it back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.contract import Spell
from router.quarantine import FAULTS, FORGIVEN_AFTER, FORGIVEN_S, HARD, QUICK, SLOW, Quarantine, back_off
from router.request import NEVER
from router.words import Reason


def strike(quarantine: Quarantine, reason: Reason = Reason.CRASHED, now: float = 0.0, variant: str = "v") -> bool:
    return quarantine.strike("f", "1", variant, reason, now)


def probe(quarantine: Quarantine, fault: Reason | None) -> float:
    """Probe whatever is due next, when it is; returns when that was."""
    now = quarantine.next_s
    (spell,) = quarantine.due(now)
    quarantine.probed(spell, fault, now)
    return now


def test_who_breaks_is_held_until_a_probe_answers() -> None:
    """A second fault meanwhile is none: it is a batch from before."""
    quarantine = Quarantine()
    assert (True, False) == (strike(quarantine), strike(quarantine, now=0.5))
    assert (frozenset({"v"}), True, False) == (
        quarantine.held("f"),
        quarantine.holds("f", "v"),
        quarantine.holds("f", "w"),
    )
    assert ((), 1.0) == (quarantine.due(0.999), quarantine.next_s)
    assert 1.0 == probe(quarantine, None)
    assert (frozenset(), NEVER, {}) == (quarantine.held("f"), quarantine.next_s, quarantine.spells("f"))


def test_a_probe_is_wanted_once() -> None:
    """Until it is known how it went, nobody is asked for another."""
    quarantine = Quarantine()
    strike(quarantine)
    assert 1 == len(quarantine.due(1.0))
    assert ((), NEVER) == (quarantine.due(9.0), quarantine.next_s)


@pytest.mark.parametrize("reason", sorted(FAULTS))
def test_each_failed_probe_doubles_the_spell_up_to_a_bound(reason: Reason) -> None:
    """What costs an executor is tried seldom, what does not often; what may be anybody's doing at once, first."""
    quarantine, rule = Quarantine(), SLOW if reason in HARD else QUICK
    strike(quarantine, reason)
    lengths, now = [quarantine.next_s], 0.0
    for _ in range(60):
        now = probe(quarantine, reason)
        lengths.append(quarantine.next_s - now)
    expected = {Reason.OUT_OF_MEMORY: [0.0, 2.0, 4.0], Reason.KILLED: [0.0, 2.0, 4.0]}.get(
        reason, [1.0, 2.0, 4.0] if reason in HARD else [0.0, 0.1, 0.2]
    )
    assert expected == pytest.approx(lengths[:3])
    assert rule.most_s == pytest.approx(lengths[-1])
    assert rule == back_off(reason)


@pytest.mark.parametrize("reason", sorted(FAULTS - HARD))
def test_an_exception_brings_suspicion_alone_and_one_probe_a_second(reason: Reason) -> None:
    """It may be the request's doing, so that no number of such requests keeps the variant away."""
    quarantine, probes = Quarantine(), 0
    for number in range(90):
        now = number * 0.1
        assert not strike(quarantine, reason, now)
        for spell in quarantine.due(now):
            probes += 1
            assert not quarantine.probed(spell, None, now + 0.01)
    assert (9, frozenset(), ()) == (probes, quarantine.held("f"), quarantine.take())


def test_who_breaks_under_the_probe_of_a_suspicion_is_struck() -> None:
    """As it broke there; strikes from before count, and one probe serves faults that come while it runs."""
    quarantine = Quarantine()
    strike(quarantine)
    back = probe(quarantine, None)
    strike(quarantine, Reason.WRONG_OUTPUT, back)
    (spell,) = quarantine.due(back)
    strike(quarantine, Reason.WRONG_OUTPUT, back)
    assert ((), True) == (quarantine.due(back + 9.0), quarantine.probed(spell, Reason.EXECUTOR_ERROR, back + 9.0))
    (held,) = quarantine.spells("f").values()
    assert (Reason.EXECUTOR_ERROR, 2) == (held.reason, held.strikes)
    assert back + 9.2 == pytest.approx(held.until_s)


def test_suspicion_ends_where_the_variant_is_struck() -> None:
    """Its probe says nothing any more."""
    quarantine = Quarantine()
    strike(quarantine, Reason.WRONG_OUTPUT)
    (spell,) = quarantine.due(0.0)
    strike(quarantine, now=0.1)
    assert not quarantine.probed(spell, Reason.WRONG_OUTPUT, 0.2)
    assert (1, 1.1) == (quarantine.spells("f")["v"].strikes, quarantine.next_s)


@pytest.mark.parametrize("reason", [Reason.CRASHED, Reason.WRONG_OUTPUT])
def test_a_probe_that_could_not_be_made_says_nothing(reason: Reason) -> None:
    """It is wanted again after a second, and no strike is added."""
    quarantine = Quarantine()
    strike(quarantine, reason)
    for _ in range(5):
        now = probe(quarantine, Reason.EXECUTOR_LOST)
        assert now + 1.0 == quarantine.next_s
    assert [1] * (reason in HARD) == [spell.strikes for spell in quarantine.spells("f").values()]
    assert len(quarantine.take()) == (reason in HARD)
    probe(quarantine, None)
    assert frozenset() == quarantine.held("f")


def test_the_end_of_memory_is_doubted_but_not_without_pause() -> None:
    """It may be anybody's doing: each strike is taken back by a probe, once a second at most."""
    quarantine, back = Quarantine(), -1.0
    for number in range(5):
        now = back + 0.5
        assert strike(quarantine, Reason.OUT_OF_MEMORY, now)
        assert 1 == quarantine.spells("f")["v"].strikes
        back = probe(quarantine, None)
        assert back - now == 0.5 * (number > 0)


def test_who_breaks_again_soon_is_held_longer_and_who_was_sound_for_long_is_not() -> None:
    """Strikes are forgiven after ten times the last spell, a minute at least."""
    quarantine = Quarantine()
    strike(quarantine)
    back = probe(quarantine, None)
    strike(quarantine, now=back + FORGIVEN_S - 1.0)
    assert 2 == quarantine.spells("f")["v"].strikes
    back = probe(quarantine, None)
    strike(quarantine, now=back + max(FORGIVEN_S, FORGIVEN_AFTER * 2.0))
    assert 1 == quarantine.spells("f")["v"].strikes


def test_a_doubted_variant_is_probed_at_once_and_a_sound_answer_takes_the_strike_back() -> None:
    """What breaks a second variant as well is thought to be the request."""
    quarantine = Quarantine()
    strike(quarantine)
    quarantine.doubt("f", "v", 0.25)
    assert 0.25 == probe(quarantine, None)
    strike(quarantine, now=0.5)
    assert (1, 1.5) == (quarantine.spells("f")["v"].strikes, quarantine.next_s)


def test_a_doubted_variant_that_breaks_under_its_probe_is_guilty() -> None:
    """The doubt is gone with that."""
    quarantine = Quarantine()
    strike(quarantine)
    quarantine.doubt("f", "v", 0.25)
    probe(quarantine, Reason.CRASHED)
    assert (2, 2.25) == (quarantine.spells("f")["v"].strikes, quarantine.next_s)


def test_a_strike_is_taken_back_though_its_spell_is_over() -> None:
    """The request may break its second variant after the first one is back."""
    quarantine = Quarantine()
    strike(quarantine)
    back = probe(quarantine, None)
    quarantine.doubt("f", "v", back)
    quarantine.doubt("f", "v", back)
    strike(quarantine, now=back)
    assert 1 == quarantine.spells("f")["v"].strikes
    quarantine.doubt("f", "nobody", back)


def test_strikes_of_an_earlier_life_count() -> None:
    """A worker that was ended by a variant knows so from the one before it."""
    quarantine = Quarantine()
    quarantine.strike("f", "1", "v", Reason.CRASHED, 0.0, strikes=3)
    assert (3, 4.0) == (quarantine.spells("f")["v"].strikes, quarantine.next_s)


def test_what_is_gone_is_forgotten() -> None:
    """The variants of another revision, or of a family that is no more; a probe of them is ignored."""
    quarantine = Quarantine()
    strike(quarantine)
    strike(quarantine, variant="w")
    quarantine.strike("g", "1", "v", Reason.HUNG, 0.0)
    (spell, _, other) = quarantine.due(1.0)
    quarantine.keep("f", ["w"])
    assert (frozenset({"w"}), frozenset({"v"})) == (quarantine.held("f"), quarantine.held("g"))
    assert not quarantine.probed(spell, None, 1.0)
    quarantine.keep("g", ())
    quarantine.strike("g", "2", "v", Reason.HUNG, 1.0)
    assert not quarantine.probed(other, None, 1.0), "it was the old revision's"
    assert quarantine.holds("g", "v")


def test_it_tells_what_began_and_ended() -> None:
    """Each once."""
    quarantine = Quarantine()
    strike(quarantine)
    probe(quarantine, Reason.HUNG)
    probe(quarantine, None)
    told = [(spell.reason, spell.strikes, spell.until_s, spell.over) for spell in quarantine.take()]
    assert [(Reason.CRASHED, 1, 1.0, False), (Reason.HUNG, 2, 3.0, False), (Reason.HUNG, 2, 3.0, True)] == told
    assert () == quarantine.take()


def test_callers_are_told_when_the_first_variant_is_probed() -> None:
    """The next second may be theirs."""
    quarantine = Quarantine()
    assert 0.0 == quarantine.retry_after_s("f", 0.0)
    strike(quarantine)
    strike(quarantine, now=0.5, variant="w")
    assert 0.75 == quarantine.retry_after_s("f", 0.25)
    assert 0.0 == quarantine.retry_after_s("f", 5.0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["strike", "doubt", "sound", "broken"]),
            st.sampled_from(["v", "w"]),
            st.sampled_from(sorted(FAULTS)),
            st.floats(0.0, 400.0),
        ),
        max_size=40,
    )
)
def test_a_spell_always_ends_and_only_by_a_sound_probe(steps: list[tuple[str, str, Reason, float]]) -> None:
    """Whatever happens in whatever order: who is held has a probe ahead or under way, none later than allowed."""
    quarantine, now = Quarantine(), 0.0
    probing: dict[str, Spell] = {}
    for what, variant, reason, later_s in steps:
        now += later_s
        probing |= {spell.variant: spell for spell in quarantine.due(now)}
        held = quarantine.held("f")
        if what == "strike":
            began = quarantine.strike("f", "1", variant, reason, now)
            assert began == (reason in HARD and variant not in held)
            assert quarantine.held("f") == held | ({variant} if reason in HARD else set())
        elif what == "doubt":
            quarantine.doubt("f", variant, now)
            assert quarantine.held("f") == held
        elif variant in probing:
            changed = quarantine.probed(probing.pop(variant), None if what == "sound" else reason, now)
            freed, struck = held - quarantine.held("f"), quarantine.held("f") - held
            assert changed == bool(freed or struck)
            assert not (freed if what == "broken" else struck), "a sound answer holds nobody, a fault frees nobody"
            assert freed | struck <= {variant}
        for name, spell in quarantine.spells("f").items():
            assert name in probing or quarantine.next_s <= spell.until_s
            assert spell.until_s - now <= back_off(spell.reason).most_s
            assert spell.strikes >= 1
