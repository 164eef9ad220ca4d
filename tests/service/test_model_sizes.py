"""What models are thought to take, and what a load changes of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from router.placement import Spot
from service.footprint import OwnFootprint
from service.model_sizes import ModelSizes, opening_bytes
from service.opening_room import OpeningRoom
from service.piecewise import PiecewiseFamily
from tests.service.families import sign_model, write_family
from variants.manifest import ModelFile
from variants.repository import Repository
from variants.session import SessionOptions
from variants.shared_parts import NOTHING_SHARED, LookupTable, SharedParts

TABLE_BYTES = 1_000_000
TABLE = LookupTable(name="table", sha256="1" * 64, datatype="float32", shape=(TABLE_BYTES // 4,))
SHARING = SharedParts(weights=("0" * 64,), tables=(TABLE,))


def folder(graph_bytes: int, weights_bytes: int = 0) -> Any:
    """A revision whose one graph takes so much, and refers to so much beside a table, if to anything."""
    parts = SHARING if weights_bytes else NOTHING_SHARED
    tables = TABLE_BYTES if weights_bytes else 0
    return SimpleNamespace(
        manifest=SimpleNamespace(preparation=None, parts_of=lambda _: parts),
        file_bytes=lambda _: graph_bytes,
        size_bytes=lambda _: graph_bytes + weights_bytes + tables,
    )


@pytest.mark.parametrize(
    ("runtime", "gained", "expected"),
    [
        ("onnxruntime", 0, 75),  # freed memory that is used again does not show
        ("onnxruntime", 300, 200),
        ("openvino", 0, 100),  # what it takes for batches of new shapes is still to come
        ("openvino", 300, 200),
    ],
)
def test_what_a_load_changes(runtime: str, gained: int, expected: int) -> None:
    """Half of it is believed; of a runtime that grows with its batches, nothing below what was measured with all."""
    sizes = ModelSizes(folder(10), "f")
    file = ModelFile("model.onnx", runtime)
    sizes.expect(file, [100])
    (key,) = sizes.keys([file])
    sizes.took([key], (), gained)
    assert expected == sizes.bytes[key]


class Counted(OwnFootprint):
    """How often it was measured what models take: each second time so much more."""

    times = 0
    gained = 0

    def models_bytes(self) -> int:
        self.times += 1
        return 0 if self.times % 2 else self.gained


@pytest.mark.parametrize(("taken", "measured"), [(1.0, [2, 0, 0, 0]), (50.0, [2, 2, 2, 0]), (0.0, [2, 2, 2, 0])])
def test_who_is_waited_for_is_measured_until_it_is_known(tmp_path: Path, taken: float, measured: list[int]) -> None:
    """A first load whoever waits, and two more where it was far from what was believed; else when nobody waits."""
    repository = Repository(tmp_path)
    write_family(repository, "sign", {"plain": (sign_model(), 0.8), "best": (sign_model(), 0.9)})
    footprint = Counted()
    piece = PiecewiseFamily(
        repository, "sign", SessionOptions(), None, stages="off", cascades=False, footprint=footprint
    )
    footprint.times = 0

    def measured_by(variant: str, *, in_haste: bool) -> int:
        before, footprint.gained = footprint.times, int(taken * piece.size(variant))
        piece.hold(variant, piece.open(variant, in_haste=in_haste))
        piece.drop(variant)
        return footprint.times - before

    assert measured == [measured_by("plain", in_haste=True) for _ in measured]
    assert measured == [measured_by("best", in_haste=True) for _ in measured]
    assert measured_by("plain", in_haste=False) == 2


@pytest.mark.parametrize(
    ("runtime", "weights", "measured", "expected"),
    [
        ("onnxruntime", 0, None, 8000),  # nobody knows: what it keeps is there twice
        ("onnxruntime", 4000, 300, 2200),  # a small graph is parsed, whatever a profile saw of that
        ("onnxruntime", 4000, 9000, 9000),
        ("openvino", 0, 300, 300),
    ],
)
def test_what_opening_takes_for_a_moment(runtime: str, weights: int, measured: int | None, expected: int) -> None:
    """By its profile, once on however many devices; weights in a graph take no less than is known of such."""
    sizes = ModelSizes(folder(1000, weights), "f")
    sizes.expect(ModelFile("model", runtime), [8000 + bool(weights) * TABLE_BYTES] * 2, measured)
    assert [expected] == list(sizes.opening.values())


def test_what_opening_takes_is_that_of_the_device_where_it_takes_most() -> None:
    """Where one has no profile, or an older one, it is not known."""

    def profile(opening: int | None) -> Any:
        return SimpleNamespace(variants={"v": SimpleNamespace(opening_bytes=opening)}, stages={})

    assert 5 == opening_bytes([profile(3), profile(5)], "v")
    assert opening_bytes([profile(3), profile(None)], "v") is None
    assert opening_bytes([profile(3), None], "v") is None


def test_room_to_open_is_kept_for_what_could_be_loaded() -> None:
    """The most that any variant takes which all the room would do for; one that did not, when it clearly does."""

    def piece(name: str, *variants: tuple[int, int]) -> Any:
        names = [str(number) for number in range(len(variants))]
        openings = sorted(enumerate(opening for _, opening in variants), key=lambda one: -one[1])
        family = SimpleNamespace(variants=[SimpleNamespace(name=one) for one in names])
        together = {number: sum(both) for number, both in zip(names, variants, strict=True)}
        loaded = SimpleNamespace(family=family)
        return SimpleNamespace(name=name, openings=openings, size_opening=together.__getitem__, loaded=loaded)

    small_and_large, other = piece("f", (25, 55), (100, 220)), piece("g", (10, 60))
    opening = OpeningRoom()
    assert 55 == opening.room([(small_and_large, (0, 1))], 200.0)
    assert {Spot("f", 1)} == opening.too_large
    assert 60 == opening.room([(small_and_large, (0, 1)), (other, (0,))], 200.0)
    assert 55 == opening.room([(small_and_large, (0, 1))], 325.0)
    assert 220 == opening.room([(small_and_large, (0, 1))], 340.0)
    assert 220 == opening.room([(small_and_large, (0, 1))], 325.0)
    assert 55 == opening.room([(small_and_large, (0,))], 340.0)
    assert set() == opening.too_large
    assert 0 == opening.room([], 340.0)
