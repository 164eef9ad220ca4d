from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from variants.progress import BuildProgress, LineDisplay, Step, duration


class Recorder:
    def __init__(self) -> None:
        self.steps: list[Step] = []

    def show(self, step: Step) -> None:
        self.steps.append(step)


def test_remaining_time_follows_the_pace_so_far() -> None:
    """A first stage that took twice its plan makes the rest longer; a stage under way speaks for itself."""
    now_s = [0.0]
    recorder: Any = Recorder()
    progress = BuildProgress({"a": 10.0, "b": 20.0, "c": 10.0}, recorder, clock=lambda: now_s[0])
    progress.begin("a")
    now_s[0] = 20.0
    progress.begin("b")
    now_s[0] = 30.0
    progress.advance(0.5)
    progress.end()
    assert {"a": 20.0, "b": 10.0} == progress.seconds
    assert recorder.steps == [
        Step("a", 0.0, 0.0, 40.0),
        Step("b", 0.25, 20.0, 20.0 * 1.5 + 10.0 * 1.5),
        Step("b", 0.5, 30.0, 10.0 + 10.0 * 1.25),
    ]


def test_one_short_stage_that_takes_long_does_not_lengthen_all_others_as_much() -> None:
    """A download of a minute in place of a second says little of training."""
    now_s = [0.0]
    recorder: Any = Recorder()
    progress = BuildProgress({"data": 1.0, "train": 99.0}, recorder, clock=lambda: now_s[0])
    progress.begin("data")
    now_s[0] = 60.0
    progress.begin("train")
    assert recorder.steps[-1].remaining_s == pytest.approx(99.0 * 85.0 / 26.0)


@given(
    planned_s=st.lists(st.floats(0.1, 100.0), min_size=2, max_size=5),
    took_s=st.lists(st.floats(0.1, 100.0), min_size=5, max_size=5),
)
def test_the_estimate_does_not_jump_where_a_stage_ends(planned_s: list[float], took_s: list[float]) -> None:
    """What is left when a stage is done is what is left when the next one begins."""
    now_s = [0.0]
    recorder: Any = Recorder()
    stages = {f"{number}": seconds for number, seconds in enumerate(planned_s)}
    progress = BuildProgress(stages, recorder, clock=lambda: now_s[0])
    for number, stage in enumerate(stages):
        progress.begin(stage)
        if number:
            assert recorder.steps[-1].remaining_s == pytest.approx(recorder.steps[-2].remaining_s)
        now_s[0] += took_s[number]
        progress.advance(1.0)
    assert 0.0 == pytest.approx(recorder.steps[-1].remaining_s)


def test_lines_are_written_at_stages_and_tenths() -> None:
    """Outside a terminal, a hundred small steps make eleven lines, not a hundred."""
    output = io.StringIO()
    display = LineDisplay("building x", output)
    for percent in range(101):
        display.show(Step("train", percent / 100, percent, 100.0 - percent))
    lines = output.getvalue().splitlines()
    assert 11 == len(lines)
    assert "building x: train, 50% done, 50 s gone, about 50 s left" in lines
    assert "2 min 05 s" == duration(125.2)
