"""What graphs of a revision hold alike is stored once, and they answer as before."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from variants.session import SessionOptions, open_session
from variants.shared_parts import Moved, TableFile, shared_file
from variants.sharing import PAGE_BYTES, share_weights

WORDS, WIDTH = 600, 32
"""A table of 77 kB."""


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def save(path: Path, nodes: Sequence[onnx.NodeProto], constants: Mapping[str, NDArray[Any]]) -> None:
    """Write a graph from `ids` int64 [n, t] to `logits` float32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(
        nodes,
        "looks_up",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "t"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", "t", "k"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def save_deep(path: Path, table: int, layers: Sequence[int], name: str = "words") -> None:
    """Words looked up in a table, then one matrix product for each layer; numbers say which weights they are."""
    constants: dict[str, NDArray[Any]] = {name: normal(table, WORDS, WIDTH), "up": normal(99, WIDTH, 160) / 8}
    nodes = [helper.make_node("Gather", [name, "ids"], ["rows"]), helper.make_node("MatMul", ["rows", "up"], ["h0"])]
    for depth, layer in enumerate(layers):
        constants[f"w{depth}"] = normal(layer, 160, 160) / 12
        nodes.append(helper.make_node("MatMul", [f"h{depth}", f"w{depth}"], [f"h{depth + 1}"]))
    nodes.append(helper.make_node("Relu", [f"h{len(layers)}"], ["logits"]))
    save(path, nodes, constants)


def answers(path: Path, tables: Sequence[TableFile] = ()) -> NDArray[np.float32]:
    ids = np.arange(24, dtype=np.int64).reshape(2, 12) * 17
    logits: NDArray[np.float32] = open_session(path, SessionOptions(), tables).run({"ids": ids})["logits"]
    return logits


def tables_of(folder: Path, moved: Moved, graph: str) -> list[TableFile]:
    return [TableFile(folder / shared_file(table.sha256), table) for table in moved.graphs[graph].tables]


def test_what_variants_hold_alike_is_stored_once(tmp_path: Path) -> None:
    """One table and one layer of two variants and a stage: each one file; what only one of them holds is a third."""
    save_deep(tmp_path / "short/model.onnx", table=1, layers=[2])
    save_deep(tmp_path / "long/model.onnx", table=1, layers=[2, 3], name="vocabulary")
    save_deep(tmp_path / "stages/first.onnx", table=1, layers=[2])
    before = [answers(tmp_path / f"{name}/model.onnx") for name in ("short", "long")]
    variants = {name: f"{name}/model.onnx" for name in ("short", "long")}
    moved = share_weights(tmp_path, variants, {"first": "stages/first.onnx"})

    graphs = ["graphs/short.onnx", "graphs/long.onnx", "graphs/stage.first.onnx"]
    assert graphs == [moved.files[file] for file in (*variants.values(), "stages/first.onnx")]
    assert {"graphs", "short", "long"} >= {path.name for path in tmp_path.iterdir()}
    files = {path.relative_to(tmp_path).as_posix(): path.stat().st_size for path in tmp_path.rglob("*.bin")}
    assert files.keys() == {file for graph in graphs for file in moved.graphs[graph].files}
    # The table; the layer that all hold, and the one that is the long variant's own.
    assert sorted(files.values()) == [WORDS * WIDTH * 4, 160 * 160 * 4, 160 * 160 * 4]
    assert [2, 3, 2] == [len(moved.graphs[graph].files) for graph in graphs]
    assert all((tmp_path / graph).stat().st_size < 160 * 160 * 4 for graph in graphs)
    for graph, expected in zip(graphs, before, strict=False):
        tables = tables_of(tmp_path, moved, graph)
        assert ["vocabulary" if "long" in graph else "words"] == [file.table.name for file in tables]
        np.testing.assert_array_equal(expected, answers(tmp_path / graph, tables))
        np.testing.assert_array_equal(expected, answers(tmp_path / graph))
        onnx.checker.check_model(tmp_path / graph)


def test_what_one_graph_holds_alone_leaves_it(tmp_path: Path) -> None:
    """It refers to a file of its own, which a runtime maps, and answers as before."""
    x = helper.make_node("Cast", ["ids"], ["x"], to=TensorProto.FLOAT)
    product = helper.make_node("MatMul", ["x", "w"], ["logits"])
    save(tmp_path / "alone/model.onnx", [x, product], {"w": normal(5, 12, 4000)})
    before = answers(tmp_path / "alone/model.onnx")
    moved = share_weights(tmp_path, {"alone": "alone/model.onnx"}, {})
    (parts,) = moved.graphs.values()
    assert (1, ()) == (len(parts.weights), parts.tables)
    assert 12 * 4000 * 4 == (tmp_path / parts.files[0]).stat().st_size
    np.testing.assert_array_equal(before, answers(tmp_path / "graphs/alone.onnx"))


def test_a_graph_with_nothing_large_stays_as_it_is(tmp_path: Path) -> None:
    """As does one that keeps some weights outside already."""
    save_deep(tmp_path / "large/model.onnx", table=1, layers=[2])
    x = helper.make_node("Cast", ["ids"], ["x"], to=TensorProto.FLOAT)
    product = helper.make_node("MatMul", ["x", "w"], ["logits"])
    save(tmp_path / "small/model.onnx", [x, product], {"w": normal(5, 12, 160)})
    save_deep(tmp_path / "outside/model.onnx", table=1, layers=[2])
    outside = onnx.load(tmp_path / "outside/model.onnx")
    onnx.save(outside, tmp_path / "outside/model.onnx", save_as_external_data=True, location="weights")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "large" not in path.parts}
    moved = share_weights(tmp_path, {n: f"{n}/model.onnx" for n in ("large", "small", "outside")}, {})
    assert ["large/model.onnx"] == list(moved.files)
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize("names", [("model", "graphs"), ("graphs", "model")])
def test_variants_may_be_called_as_folders_are(tmp_path: Path, names: tuple[str, str]) -> None:
    """No graph takes the place of another one that has not moved yet."""
    files = {name: f"{name}/model.onnx" for name in names}
    for number, file in enumerate(files.values()):
        save_deep(tmp_path / file, table=1, layers=[number])
    before = [answers(tmp_path / file) for file in files.values()]
    moved = share_weights(tmp_path, files, {}).files
    for file, expected in zip(files.values(), before, strict=True):
        np.testing.assert_array_equal(expected, answers(tmp_path / moved.get(file, file)))


def test_elements_of_half_a_byte_stay_as_they_are(tmp_path: Path) -> None:
    """Two of them share a byte in external data, but not in an array."""
    cast = helper.make_node("Cast", ["w"], ["c"], to=TensorProto.FLOAT)
    x = [helper.make_node("Cast", ["ids"], ["x"], to=TensorProto.FLOAT), helper.make_node("MatMul", ["x", "c"], ["y"])]
    graph = helper.make_graph(
        [cast, *x],
        "halves",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 20000])],
        [helper.make_tensor("w", TensorProto.INT4, [12, 20000], [1] * 240000)],
    )
    files = {name: f"{name}/model.onnx" for name in ("a", "b")}
    for file in files.values():
        (tmp_path / file).parent.mkdir()
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path / file)
    assert {} == share_weights(tmp_path, files, {}).files


@pytest.mark.parametrize(
    ("nodes", "is_table"),
    [
        ([helper.make_node("Gather", ["w", "ids"], ["logits"])], True),
        (
            [
                helper.make_node("Gather", ["w", "ids"], ["rows"]),
                helper.make_node("Transpose", ["w"], ["turned"]),
                helper.make_node("MatMul", ["rows", "turned"], ["logits"]),
            ],
            False,
        ),
        ([helper.make_node("Gather", ["one", "ids"], ["r"]), helper.make_node("Add", ["r", "w"], ["logits"])], False),
        (
            [
                helper.make_node(
                    "If",
                    ["yes"],
                    ["logits"],
                    then_branch=helper.make_graph(
                        [helper.make_node("Abs", ["w"], ["a"])], "t", [], [onnx.ValueInfoProto(name="a")]
                    ),
                    else_branch=helper.make_graph(
                        [helper.make_node("Neg", ["w"], ["b"])], "e", [], [onnx.ValueInfoProto(name="b")]
                    ),
                ),
                helper.make_node("Gather", ["w", "ids"], ["looked_up"]),
            ],
            False,
        ),
    ],
    ids=["only looked up", "tied", "added", "used within a branch"],
)
def test_a_table_is_what_is_only_looked_up(tmp_path: Path, nodes: Sequence[onnx.NodeProto], is_table: bool) -> None:
    """What a graph computes with in any other way is packed by the runtime, so sharing it would add a copy."""
    constants = {"w": normal(1, WORDS, WIDTH), "one": normal(2, 1, WIDTH), "yes": np.array(True)}
    for name in ("a", "b"):
        save(tmp_path / name / "model.onnx", nodes, constants)
    moved = share_weights(tmp_path, {name: f"{name}/model.onnx" for name in ("a", "b")}, {})
    for graph in ("graphs/a.onnx", "graphs/b.onnx"):
        parts = moved.graphs[graph]
        assert (["w"], 0) == ([t.name for t in parts.tables], len(parts.weights)) if is_table else not parts.tables
        assert 1 == len(parts.files)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(10, 14), max_size=4)), min_size=1, max_size=4))
def test_nothing_is_lost_or_stored_twice(graphs: list[tuple[int, list[int]]]) -> None:
    """Any graphs: all weights are what they were, tensors lie at pages, and no element is in two files."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        files = {f"v{number}": f"v{number}/model.onnx" for number in range(len(graphs))}
        for file, (table, layers) in zip(files.values(), graphs, strict=True):
            save_deep(folder / file, table, layers)
        before = {file: onnx.load(folder / file) for file in files.values()}
        moved = share_weights(folder, files, {})
        held: list[tuple[str, int]] = []
        for file, home in moved.files.items():
            for tensor in onnx.load(folder / home, load_external_data=False).graph.initializer:
                said = {entry.key: entry.value for entry in tensor.external_data}
                if said:
                    assert 0 == int(said["offset"]) % PAGE_BYTES
                    held.append((said["location"], int(said["offset"])))
            now = {t.name: numpy_helper.to_array(t) for t in onnx.load(folder / home).graph.initializer}
            then = {t.name: numpy_helper.to_array(t) for t in before[file].graph.initializer}
            assert then.keys() == now.keys()
            assert all(np.array_equal(then[name], now[name]) for name in then)
        stored = {layer for _, layers in graphs for layer in layers}
        assert len({table for table, _ in graphs}) + len(stored) == len(set(held))
