"""Who is refused at once, who may wait for room that may come, and what new requests change."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from router.roster import Cold, Missing
from service.hopes import HOPES_S, MOST_HOPING_ROWS, Hopes
from tests.service.test_appraisal import MB, Sized

WANTED = Missing(0)


def hopes_of(loadable: str, hopeful: str) -> Hopes:
    """For a room into which these families fit, and these may come to fit."""
    room: Any = SimpleNamespace(
        can_load=lambda name, *_: name in loadable, may_come_to_fit=lambda name, _: name in hopeful
    )
    return Hopes(room)


def piece(name: str, *, loaded: bool = False) -> Any:
    """A family, maybe in memory."""
    found = Sized(name, MB)
    found.paths = {"only": ()} if loaded else {}
    return found


@pytest.mark.parametrize(
    ("rows", "waited_s", "refused"),
    [(1, 0.0, False), (MOST_HOPING_ROWS, HOPES_S - 0.1, False), (MOST_HOPING_ROWS + 1, 0.0, True), (1, HOPES_S, True)],
)
def test_hope_lasts_for_seconds_and_for_some_rows(rows: int, waited_s: float, refused: bool) -> None:
    """Who waits so long, or with so many rows, does so at the cost of others who wait for loads."""
    hopes = hopes_of("", "a")
    waits = {"a": Cold(rows, 100.0 - waited_s, (WANTED,))}
    assert ([("a", WANTED)] if refused else []) == list(hopes.in_vain(waits, (), 100.0))


def test_requests_make_no_plans_while_all_that_waits_hopes() -> None:
    """It is looked at again soon anyway: only who is cold and new may change what is to be done."""
    hopes = hopes_of("b", "a")
    assert hopes.is_news(piece("warm", loaded=True)), "nothing is known yet"
    assert not list(hopes.in_vain({"a": Cold(1, 0.0, (WANTED,))}, (), 1.0))
    assert [False, False, True, False] == [
        hopes.is_news(one) for one in (piece("a"), piece("warm", loaded=True), piece("b"), None)
    ]
    waits = {name: Cold(1, 0.0, (WANTED,)) for name in "ab"}
    assert not list(hopes.in_vain(waits, (), 1.0))
    assert hopes.is_news(piece("a")), "somebody waits for a load"
    assert [("c", WANTED)] == list(hopes.in_vain({"c": Cold(1, 0.0, (WANTED,))}, (), 1.0))
    assert hopes.is_news(piece("a"))
