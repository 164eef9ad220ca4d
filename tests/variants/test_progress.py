from __future__ import annotations

import io
from typing import Any

from variants.progress import BuildProgress, LineDisplay, Step, duration


class Recorder:
    def __init__(self) -> None:
        self.steps: list[Step] = []

    def show(self, step: Step) -> None:
        self.steps.append(step)


def test_remaining_time_follows_the_pace_so_far() -> None:
    """A first stage that took twice its plan doubles the estimate of the rest; a stage under way speaks for itself."""
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
        Step("b", 0.25, 20.0, 60.0),
        Step("b", 0.5, 30.0, 10.0 + 20.0),
    ]


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
