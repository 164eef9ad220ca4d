"""Bursts: calls that come together go on together, those that come alone at once, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from math import inf

from service.rpc.bursts import MOST_S, NEAR_S, PATIENT_S, WATCHED, Bursts
from tests.rpc.test_reading import settled


class Scene:
    """Calls in tasks, and time that passes when the test says so; `gone_on` has those that wait no longer."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.gone_on: list[str] = []
        self.put_off: list[Callable[[], None]] = []
        self._bursts = Bursts(lambda: self.now_s, self._later)
        self._calls: dict[str, tuple[asyncio.Task[None], asyncio.Event]] = {}

    async def come(self, names: str, left_s: float = inf) -> None:
        """One call after the other begins and has come."""
        for name in names:
            answered = asyncio.Event()
            self._calls[name] = asyncio.create_task(self._call(name, left_s, answered)), answered
            await settled()

    async def end(self, names: str) -> None:
        """These calls are answered, in one iteration of the event loop."""
        for name in names:
            self._calls[name][1].set()
        await settled()

    async def hang_up(self, name: str) -> None:
        """The caller of this one leaves."""
        self._calls[name][0].cancel()
        await settled()

    async def quiet(self) -> None:
        """What was put off happens, and that alone."""
        due, self.put_off[:] = list(self.put_off), []
        for then in due:
            then()
        await settled()

    def took(self) -> str:
        """Those that have gone on since this was asked, by name."""
        names, self.gone_on[:] = "".join(sorted(self.gone_on)), []
        return names

    def cancel(self) -> None:
        """There is one timer at a time."""
        self.put_off.clear()

    def _later(self, _: float, then: Callable[[], None]) -> Scene:
        self.put_off.append(then)
        return self

    async def _call(self, name: str, left_s: float, answered: asyncio.Event) -> None:
        self._bursts.begin()
        await self._bursts.gathered(left_s)
        self.gone_on.append(name)
        await answered.wait()


def played(play: Callable[[Scene], Coroutine[None, None, None]]) -> None:
    """Play a scene to its end."""
    asyncio.run(play(Scene()))


def test_calls_that_come_one_by_one_do_not_wait() -> None:
    """Each goes on at once, however soon it comes after the one before has ended."""

    async def play(scene: Scene) -> None:
        for name in "abc":
            await scene.come(name)
            assert scene.took() == name
            await scene.end(name)
        assert not scene.put_off

    played(play)


def test_calls_that_come_far_apart_do_not_wait() -> None:
    """Neither does one that comes while another one is still being answered."""

    async def play(scene: Scene) -> None:
        for name in "abc":
            await scene.come(name)
            assert scene.took() == name
            scene.now_s += NEAR_S

    played(play)


def test_as_many_go_on_together_as_came_before() -> None:
    """The first burst is waited for to its end; the next ones go on when as many have come, without a timer."""

    async def play(scene: Scene) -> None:
        await scene.come("abcd")
        assert scene.took() == "a"
        await scene.quiet()
        assert scene.took() == ""
        await scene.quiet()
        assert scene.took() == "bcd"
        await scene.end("abcd")
        await scene.come("ef")
        assert scene.took() == ""
        await scene.come("g")
        assert (scene.took(), scene.put_off) == ("efg", [])

    played(play)


def test_every_few_bursts_one_is_waited_for_to_its_end() -> None:
    """So more calls than came together before are found, and go on together from then on."""

    async def play(scene: Scene) -> None:
        await scene.come("abc")
        await scene.quiet()
        await scene.quiet()
        await scene.end("abc")
        await scene.come("de")
        assert scene.took() == "abcde"
        for _ in range(WATCHED // 2 - 1):
            await scene.come("wx")
            assert scene.took() == "wx"
            await scene.come("yz")
            assert scene.took() == "yz"
        await scene.come("wxyz")
        assert scene.took() == ""
        await scene.quiet()
        await scene.quiet()
        assert scene.took() == "wxyz"
        await scene.come("wxy")
        assert scene.took() == ""
        await scene.come("z")
        assert scene.took() == "wxyz"

    played(play)


def test_who_is_left_alone_waits_once() -> None:
    """A call that nobody comes with any more goes on after a quiet moment, and later ones at once."""

    async def play(scene: Scene) -> None:
        await scene.come("abc")
        await scene.quiet()
        await scene.quiet()
        assert scene.took() == "abc"
        await scene.end("abc")
        await scene.come("d")
        await scene.quiet()
        assert scene.took() == "d"
        await scene.end("d")
        await scene.come("e")
        assert scene.took() == "e"

    played(play)


def test_who_hangs_up_keeps_nobody() -> None:
    """Those that wait with it go on all the same."""

    async def play(scene: Scene) -> None:
        await scene.come("abc")
        await scene.hang_up("b")
        await scene.quiet()
        await scene.quiet()
        assert scene.took() == "ac"

    played(play)


def test_calls_that_go_on_coming_are_not_waited_for_for_ever() -> None:
    """A look that finds another call begun waits on, but not once the first one has waited for long."""

    async def play(scene: Scene) -> None:
        await scene.come("ab")
        for name in "cde":
            await scene.come(name)
            await scene.quiet()
        assert scene.took() == "a"
        scene.now_s += MOST_S
        await scene.come("f")
        await scene.quiet()
        assert scene.took() == "bcdef"

    played(play)


def test_an_slo_of_50_ms_is_no_hurry() -> None:
    """Also where a few milliseconds of it have passed before the call is decoded, as they always have."""

    async def play(scene: Scene) -> None:
        await scene.come("ab")
        await scene.come("c", 0.044)
        assert scene.took() == "a"

    played(play)


def test_who_is_in_a_hurry_does_not_wait() -> None:
    """A call with little time left goes on at once, and the others wait as they would without it."""

    async def play(scene: Scene) -> None:
        await scene.come("ab")
        await scene.come("c", 0.9 * PATIENT_S)
        assert scene.took() == "ac"
        await scene.come("d", PATIENT_S)
        await scene.quiet()
        await scene.quiet()
        assert scene.took() == "bd"

    played(play)
