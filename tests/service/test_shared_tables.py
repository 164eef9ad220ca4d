"""Lookup tables of variants and families are in memory once, count once, and go with the last that uses them."""

from __future__ import annotations

import itertools
from pathlib import Path
from weakref import ref

import httpx
import pytest

from loadtests.servers import gateway, running
from router.roster import Missing
from service.in_memory import taken_by_file
from service.model_room import ModelRoom
from service.model_sizes import is_table
from service.piecewise import PiecewiseFamily
from service.residency import Residency
from tests.service.conftest import sign_body
from tests.service.families import looking_up, share_family, write_family
from variants.repository import Repository, RepositoryError
from variants.session import ModelLoadError, SessionOptions
from variants.shared_sizes import loaded_bytes, own_bytes, repeated_table_bytes
from variants.tables import hold_tables

TABLE_BYTES = 600 * 32 * 4
NAMES = ("first", "second", "third")


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three families of two variants each, all with the same table; profiles are taken once."""
    root = tmp_path_factory.mktemp("alike")
    repository = Repository(root)
    for number, name in enumerate(NAMES, 1):
        write_family(repository, name, {"small": (looking_up(number), 0.8), "large": (looking_up(3.0 + number), 0.9)})
        share_family(repository, name)
        piece(root, name)
    return root


def piece(root: Path, name: str) -> PiecewiseFamily:
    return PiecewiseFamily(Repository(root), name, SessionOptions(), None, stages="off", cascades=False)


def test_variants_and_families_hold_a_table_together(alike: Path) -> None:
    """It is one file among those held, takes what it takes, and is gone with the last variant."""
    pieces = {name: piece(alike, name) for name in NAMES[:2]}
    opened = [("first", "small"), ("first", "large"), ("second", "small")]
    for name, variant in opened:
        pieces[name].hold(variant, pieces[name].open(variant))
    table = ref(hold_tables(Repository(alike).open("first").tables("graphs/small.onnx"))["table"])
    held = set(taken_by_file(pieces))
    assert 4 == len(held)
    assert [TABLE_BYTES] == [pieces["second"].bytes[file] for file in held if is_table(file)]
    for name, variant in opened:
        assert pieces[name].size(variant) >= TABLE_BYTES + pieces[name].bytes[f"{name}/graphs/{variant}.onnx"]
        assert table() is not None
        pieces[name].drop(variant)
    assert {} == taken_by_file(pieces)
    assert table() is None


def test_what_a_load_took_does_not_change_a_table(alike: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size is known; that of the graph beside it is an estimate."""
    family = piece(alike, "first")
    before = dict(family.bytes)
    resident = itertools.count(0, 10**9)
    monkeypatch.setattr("service.footprint.resident_bytes", lambda: next(resident))
    family.open("small")
    changed = {file for file in before if family.bytes[file] != before[file]}
    assert {"first/graphs/small.onnx"} == changed


def test_pages_are_kept_for_tables_that_are_not_there(alike: Path) -> None:
    """What other families have in memory is not read again, and needs no pages."""
    first = piece(alike, NAMES[0])
    tables = {file for file in first.keys("small") if is_table(file)}
    assert TABLE_BYTES == first.tables_bytes("small", ())
    assert first.tables_bytes("small", tables) == 0


def test_room_for_a_shared_table_is_asked_for_once(alike: Path) -> None:
    """Beside a pinned family, one with the same table needs only what is its own."""
    pieces = {name: piece(alike, name) for name in NAMES[:2]}
    room = ModelRoom(pieces, 1 << 40, ("first",), 1)
    room.measure((), 0.0)
    both = {file: size for family in pieces.values() for file, size in family.bytes.items()}
    # What a load takes is measured: either variant may be the one that takes less.
    least = [family.keys(min(("small", "large"), key=family.size)) for family in pieces.values()]
    needed = sum(both[file] for files in least for file in files if not is_table(file))
    room.allowed_bytes = needed + TABLE_BYTES
    assert room.can_load("second", Missing(0), ())
    room.allowed_bytes -= 1
    assert not room.can_load("second", Missing(0), ())


def test_who_is_refused_for_want_of_room_is_told_so_in_the_log(alike: Path, caplog: pytest.LogCaptureFixture) -> None:
    """How much is wanted and how much there is, for each family once in a while, not with every request."""
    residency = Residency({name: piece(alike, name) for name in NAMES[:2]}, 0, (), 1)
    for name in (*NAMES[:2], *NAMES[:2]):
        residency._tell_in_vain(name, Missing(0))
    residency.stop()
    told = [record.getMessage() for record in caplog.records]
    assert list(NAMES[:2]) == [text.split(":")[0].removeprefix("family ") for text in told]
    assert all("the budget leaves 0.0 MB for models" in text for text in told)


def test_sizes_say_what_is_shared(alike: Path) -> None:
    """A variant's size is the whole, its own part is less by the table, and a table counts once in memory."""
    manifest = Repository(alike).open("first").manifest
    own = own_bytes(manifest)
    for variant in manifest.variants:
        assert variant.size_bytes > TABLE_BYTES > own[variant.name] > 0
    assert TABLE_BYTES == repeated_table_bytes(manifest, ["small", "large"])
    assert 0 == repeated_table_bytes(manifest, ["small"])
    both, small = (
        sum(manifest.variant(name).size_bytes for name in names) for names in (("small", "large"), ("small",))
    )
    assert both - TABLE_BYTES == loaded_bytes(manifest, ["small", "large"])
    assert 3 * (small - TABLE_BYTES) + TABLE_BYTES == loaded_bytes(manifest, ["small"], 3)


def test_a_damaged_table_refuses_its_variants_by_name(alike: Path, tmp_path: Path) -> None:
    """Whoever opens it is told which file is wrong; a family that has the table from another one's file is not."""
    repository = Repository(tmp_path)
    write_family(repository, "sick", {"only": (looking_up(), 0.8)})
    share_family(repository, "sick")
    damaged = piece(tmp_path, "sick")
    (file,) = (repository.open("sick").path / "graphs" / "shared").iterdir()
    file.write_bytes(bytes(TABLE_BYTES))
    with pytest.raises(ModelLoadError, match=file.name):
        damaged.open("only")
    assert f"graphs/shared/{file.name}" in damaged.refused["only"]
    assert "graphs" in repository.open("sick").verify()["only"]
    sound = piece(alike, "third")
    sound.hold("small", sound.open("small"))


def test_a_missing_graph_refuses_its_variant_alone(tmp_path: Path) -> None:
    """Under a budget as without one: the family is read, and serves what is there."""
    repository = Repository(tmp_path)
    write_family(repository, "torn", {"small": (looking_up(1.0), 0.8), "large": (looking_up(2.0), 0.9)})
    share_family(repository, "torn")
    piece(tmp_path, "torn")
    (repository.open("torn").path / "graphs" / "small.onnx").unlink()
    torn = piece(tmp_path, "torn")
    with pytest.raises(RepositoryError, match="is missing"):
        torn.open("small")
    torn.hold("large", torn.open("large"))
    assert {"small": "graphs/small.onnx: is missing"} == torn.refused


def test_families_that_share_answer_within_a_budget(alike: Path) -> None:
    """Over a socket: loaded as they are asked for, each answers with its own weights behind the one table."""
    settings = {"PARETO_SLOTS": "1", "PARETO_MEMORY_BUDGET": "8GiB"}
    with running(gateway(alike, settings)) as server, httpx.Client(base_url=server.url, timeout=60.0) as client:
        confident = []
        for name in NAMES:
            for variant in ("small", "large"):
                path = f"/v2/models/{name}/versions/{variant}/infer"
                answer = client.post(path, json=sign_body(1.0)).raise_for_status().json()
                given = {output["name"]: output["data"] for output in answer["outputs"]}
                assert ["yes"] == given["label"]
                confident.append(round(given["confidence"][0], 4))
        # Logits of plus and minus f: the softmax of the larger one is 1 / (1 + exp(-2 f)).
        assert sorted(set(confident)) == sorted({0.8808, 0.982, 0.9975, 0.9997, 1.0})
