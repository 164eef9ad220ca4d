"""Arrays in memory that two processes share, and how the end of an executor is judged."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from router.words import Reason
from service.processes.conversation import NO_TEMPLATE, TEMPLATE_ENDED, End
from service.processes.deaths import MemoryKills, reason_of
from service.processes.tensors import Area, TensorError

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="there is shared memory without a name")

TYPES = st.sampled_from(["<f4", "<f8", "<f2", "<i8", "<i4", "|u1", "|b1"])


SHAPES = arrays.array_shapes(min_dims=0, min_side=0)
TENSORS = st.dictionaries(st.text(max_size=8), TYPES.flatmap(lambda kind: arrays.arrays(kind, SHAPES)), max_size=3)


@given(TENSORS)
def test_what_one_writes_the_other_reads(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    """Whatever numbers, of whatever shape, however often the memory has to grow."""
    one = Area.make()
    other = Area(os.dup(one.file))
    for times in (1, 200):
        grown = {name: np.repeat(array[np.newaxis], times, axis=0) for name, array in tensors.items()}
        found = other.read(one.write(grown))
        assert list(grown) == list(found)
        for name, array in grown.items():
            np.testing.assert_array_equal(array, found[name])
    del found
    one.close()
    other.close()


def test_what_are_no_numbers_is_refused() -> None:
    """Text and objects do not lie in memory as they are."""
    area = Area.make()
    with pytest.raises(TensorError, match="label: object is not a type of numbers"):
        area.write({"label": np.array([b"yes"], object)})
    area.close()


@pytest.mark.parametrize(
    "told",
    [
        ["x", "<f4", [1 << 40], 0],
        ["x", "<f4", [4], 1 << 30],
        ["x", "<f4", [4], -4],
        ["x", "<f4", [-1], 0],
        ["x", "<f4", [1.5], 0],
        ["x", "|O", [1], 0],
        ["x", "nonsense", [1], 0],
        [1, "<f4", [1], 0],
        ["x", "<f4"],
        "x",
    ],
)
def test_what_a_broken_executor_says_is_not_believed(told: Any) -> None:
    """No place beyond the end, no type that points elsewhere."""
    area = Area.make()
    area.write({"x": np.ones(4, np.float32)})
    with pytest.raises(TensorError):
        area.read([told])
    area.close()


def test_nobody_makes_it_smaller() -> None:
    """Else the other side would fault where it reads."""
    area = Area.make()
    area.write({"x": np.ones(4, np.float32)})
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(area.file, 0)
    area.close()


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (End("was killed by SIGABRT", signal.SIGABRT), Reason.CRASHED),
        (End("ended with exit code 1", 0), Reason.CRASHED),
        (End(TEMPLATE_ENDED, 0), Reason.EXECUTOR_LOST),
        (End(NO_TEMPLATE, 0), Reason.EXECUTOR_LOST),
    ],
)
def test_what_a_model_cannot_have_done_is_not_its_crash(end: End, reason: Reason) -> None:
    """A signal that models send themselves, an exit; and the end of what executors come from."""
    assert reason == reason_of(end)


@pytest.mark.parametrize(
    ("counts", "moments", "reasons"),
    [
        ([0, 0], [9.0], [Reason.KILLED]),
        ([3, 4, 4, 4], [9.0, 13.0, 14.0], [Reason.OUT_OF_MEMORY, Reason.OUT_OF_MEMORY, Reason.KILLED]),
        ([None, None], [9.0], [Reason.OUT_OF_MEMORY]),
        ([None, 7], [9.0], [Reason.OUT_OF_MEMORY]),
        ([7, None], [9.0], [Reason.OUT_OF_MEMORY]),
    ],
)
def test_who_is_killed_ran_out_of_memory_if_the_kernel_counts_that(
    counts: list[int | None], moments: list[float], reasons: list[Reason]
) -> None:
    """SIGKILL comes from elsewhere: the kernel says how often it killed for want of memory, or nobody knows."""
    kills = MemoryKills(iter(counts).__next__, iter(moments).__next__)
    killed = End("was killed by SIGKILL", signal.SIGKILL)
    assert reasons == [reason_of(killed, kills) for _ in reasons]


@pytest.mark.parametrize(
    ("looks", "reason"),
    [
        ([(100.0, 1), (101.0, 1)], Reason.KILLED),
        ([(100.0, 0), (100.5, 1)], Reason.OUT_OF_MEMORY),
        ([(100.0, 0), (160.0, 1)], Reason.OUT_OF_MEMORY),
        ([(100.0, 0), (102.0, 1), (103.0, 1)], Reason.OUT_OF_MEMORY),
        ([(100.0, 0), (160.0, 1), (161.0, 1)], Reason.KILLED),
        ([(100.0, 0), (102.0, 1), (108.0, 1)], Reason.KILLED),
    ],
)
def test_what_the_kernel_killed_before_is_not_why_another_one_ends(
    looks: list[tuple[float, int]], reason: Reason
) -> None:
    """Work begins at each moment but the last, when the executor is killed; the kernel's count was 0 long before."""
    now = [(0.0, 0)]
    kills = MemoryKills(lambda: now[-1][1], lambda: now[-1][0])
    for look in looks[:-1]:
        now.append(look)
        kills.begin()
    now.append(looks[-1])
    assert reason == reason_of(End("was killed by SIGKILL", signal.SIGKILL), kills)
