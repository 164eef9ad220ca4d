"""What `make bench-runtimes` prints comes of rounds in which port and original took turns."""

from __future__ import annotations

from loadtests.runtimes import Cell, cells_of


def test_ratios_are_of_the_same_round() -> None:
    """A machine that slows down for a whole round changes no ratio."""
    rounds = [{"a": 0.004, "a-openvino": 0.002}, {"a": 0.04, "a-openvino": 0.02}, {"a": 0.004, "a-openvino": 0.001}]
    assert [Cell("a-openvino", 4, 4.0, 2.0, (2.0, 2.0, 4.0))] == cells_of({"a-openvino": "a"}, 4, rounds)
