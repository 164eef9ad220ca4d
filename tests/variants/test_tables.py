"""Lookup tables are in memory once, for as long as a session needs them, and are what the manifest says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import psutil
import pytest
from onnx import helper

from tests.variants.test_sharing import WIDTH, WORDS, answers, normal, save, save_deep, tables_of
from variants.pages import KeptPages
from variants.runtimes.onnxruntime_cpu import OnnxruntimeModel
from variants.session import ModelLoadError, open_session
from variants.shared_parts import LookupTable, TableFile
from variants.sharing import share_weights
from variants.tables import hold_tables

MB = 1_000_000


def table_file(path: Path, seed: int) -> TableFile:
    elements = np.random.default_rng(seed).standard_normal((8, 4)).astype(np.float32)
    path.write_bytes(elements.tobytes())
    sha256 = hashlib.sha256(elements.tobytes()).hexdigest()
    return TableFile(path, LookupTable(name="words", sha256=sha256, datatype="float32", shape=(8, 4)))


def test_equal_tables_are_held_once_until_nobody_needs_them(tmp_path: Path) -> None:
    """Two files with the same elements are one table, whatever they are called; the last to let go drops it."""
    one, same = table_file(tmp_path / "one", 1), table_file(tmp_path / "same", 1)
    first = hold_tables([one])
    second = hold_tables([same._replace(table=same.table.model_copy(update={"name": "vocabulary"}))])
    held = ref(first["words"])
    assert held() is second["vocabulary"]
    del first
    assert held() is not None
    del second
    assert held() is None


def test_a_table_in_memory_is_not_read_again(tmp_path: Path) -> None:
    """Its file may even be gone; once nobody holds it, that shows."""
    file = table_file(tmp_path / "one", 2)
    held = hold_tables([file])
    file.path.unlink()
    np.testing.assert_array_equal(held["words"].value.numpy(), hold_tables([file])["words"].value.numpy())
    del held
    with pytest.raises(FileNotFoundError):
        hold_tables([file])


def test_what_a_table_leaves_behind_is_no_part_of_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that are used again hold what the file says; a file that is too short or has been changed is refused."""
    kept = KeptPages()
    kept.keep_at_most(MB)
    monkeypatch.setattr("variants.tables.KEPT", kept)
    first, second = table_file(tmp_path / "one", 3), table_file(tmp_path / "two", 4)
    hold_tables([first])
    assert kept.bytes
    held = hold_tables([second])
    assert not kept.bytes
    elements = np.frombuffer(second.path.read_bytes(), np.float32).reshape(8, 4)
    np.testing.assert_array_equal(held["words"].value.numpy(), elements)
    del held
    for damaged in (second.path.read_bytes()[:-1], bytes(len(second.path.read_bytes()))):
        second.path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"has (not the \d+ bytes|the wrong SHA-256)"):
            hold_tables([second])


def test_sessions_hold_their_tables(tmp_path: Path) -> None:
    """While one of two sessions is open the table is there and answers; then it is gone."""
    for name, layers in (("short", [2]), ("long", [2, 3])):
        save_deep(tmp_path / f"{name}/model.onnx", 31, layers)
    expected = answers(tmp_path / "long/model.onnx")
    moved = share_weights(tmp_path, {name: f"{name}/model.onnx" for name in ("short", "long")}, {})
    files = {name: tables_of(tmp_path, moved, f"graphs/{name}.onnx") for name in ("short", "long")}
    sessions = {n: open_session(tmp_path / f"graphs/{n}.onnx", tables=files[n]) for n in files}
    assert all(session.memory_bytes >= WORDS * WIDTH * 4 for session in sessions.values())
    held = ref(hold_tables(files["short"])["words"])
    del sessions["short"]
    assert held() is not None
    np.testing.assert_array_equal(expected, answers(tmp_path / "graphs/long.onnx", files["long"]))
    del sessions["long"]
    assert held() is None


def test_a_run_keeps_its_tables_whoever_closes_the_model_meanwhile(tmp_path: Path) -> None:
    """Onnxruntime reads them where they lie: pages that went would be another table's, or nobody's."""
    held = hold_tables([table_file(tmp_path / "one", 3)])
    table = ref(held["words"])
    there: list[bool] = []

    class Running:
        """An inference session under which the model is closed."""

        def get_inputs(self) -> list[object]:
            return []

        def get_outputs(self) -> list[object]:
            return []

        def run(self, *_: object) -> list[object]:
            model.close()
            there.append(table() is not None)
            return []

    running: Any = Running()
    model = OnnxruntimeModel(running, tuple(held.values()))
    del held
    assert model.run({}) == {}
    assert [True] == there
    assert table() is None


def test_tables_that_come_and_go_leave_nothing(tmp_path: Path) -> None:
    """Twenty sessions one after the other, each with a table of 8 MB: memory is as it was, but for one of them."""
    elements = normal(33, 2**16, WIDTH)
    node = helper.make_node("Gather", ["words", "ids"], ["logits"])
    save(tmp_path / "only/model.onnx", [node], {"words": elements})
    moved = share_weights(tmp_path, {"only": "only/model.onnx"}, {})
    files = tables_of(tmp_path, moved, "graphs/only.onnx")
    answers(tmp_path / "graphs/only.onnx", files)
    before = psutil.Process().memory_info().rss
    for _ in range(20):
        answers(tmp_path / "graphs/only.onnx", files)
    assert psutil.Process().memory_info().rss - before < 2 * elements.nbytes


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda path: path.write_bytes(b"\0" * path.stat().st_size), "has the wrong SHA-256"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "has not the 76800 bytes"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "has not the 76800 bytes"),
        (lambda path: path.unlink(), "No such file"),
    ],
    ids=["changed", "cut", "longer", "missing"],
)
def test_a_damaged_table_is_named(tmp_path: Path, damage: Callable[[Path], object], fault: str) -> None:
    """A session with it is not opened, and one line says which file is wrong."""
    save_deep(tmp_path / "only/model.onnx", 32, [])
    moved = share_weights(tmp_path, {"only": "only/model.onnx"}, {})
    (file,) = tables_of(tmp_path, moved, "graphs/only.onnx")
    damage(file.path)
    with pytest.raises(ModelLoadError, match=rf"{file.path.name}.*{fault}|{fault}.*{file.path.name}"):
        open_session(tmp_path / "graphs/only.onnx", tables=[file])
