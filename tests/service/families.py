"""Small real families on disk for the server's tests: what they compute is known, how long they take is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from loadtests import handmade
from variants.repository import Repository
from variants.sharing import share_weights

ROWS, write_family = handmade.ROWS, handmade.write_family
WIDTH = 512
"""A product of two square matrices of this size takes some milliseconds."""

SMALL, LARGE = (1.7, 0.0, 0.0, 0.0), (8.0, 4.0, 0.0, 0.0)
"""The weights of the two exits: how sure the first one is says how often it is right about the second one's sign."""


def aborting_at_four_rows() -> onnx.ModelProto:
    """Logits [-x0, x0] of x FP32 [n, 4]; a batch of four rows ends the process (SIGFPE; x86 alone)."""
    initial = [
        numpy_helper.from_array(np.array([[-1, 1], [0, 0], [0, 0], [0, 0]], np.float32), "w"),
        numpy_helper.from_array(np.array([-5, 0], np.int64), "less"),
        numpy_helper.from_array(np.array([-(2**63), 0], np.int64), "least"),
    ]
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Add", ["shape", "less"], ["divisor"]),
        helper.make_node("Div", ["least", "divisor"], ["divided"]),
        helper.make_node("Cast", ["divided"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["cast", "cast"], ["zero"]),
        helper.make_node("MatMul", ["x", "w"], ["sign"]),
        helper.make_node("Add", ["sign", "zero"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "four",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 2])],
        initial,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def sign_model(matrix_products: int = 0, limit: float = 1e6, *, opposite: bool = False) -> onnx.ModelProto:
    """Logits [-x0, x0] of x FP32 [n, 4], or the `opposite`, after that many products of large matrices for each row.

    A value of x1 under -`limit` gives logits that are not finite: a model that fails on an input it should take.
    """
    first = 1 if opposite else -1
    initial = [
        numpy_helper.from_array(np.array([[first, -first], [0, 0], [0, 0], [0, 0]], np.float32), "w"),
        numpy_helper.from_array(np.array([0, 1, 0, 0], np.float32).reshape(4, 1), "pick"),
        numpy_helper.from_array(np.array([limit + 1], np.float32), "limit"),
        numpy_helper.from_array(np.zeros((4, WIDTH * 16), np.float32), "widen"),
        numpy_helper.from_array(np.array([-1, WIDTH], np.int64), "tall"),
        numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32), "square"),
        numpy_helper.from_array(np.array([0, 16], np.int64), "by_row"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.array([-1, 16 * WIDTH], np.int64), "wide"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["sign"]),
        helper.make_node("MatMul", ["x", "pick"], ["second"]),
        helper.make_node("Add", ["second", "limit"], ["shifted"]),
        helper.make_node("Log", ["shifted"], ["log"]),
        helper.make_node("Sub", ["log", "log"], ["zero_or_nan"]),
        helper.make_node("Add", ["sign", "zero_or_nan"], ["checked"]),
        helper.make_node("MatMul", ["x", "widen"], ["flat"]),
        helper.make_node("Reshape", ["flat", "tall"], ["work0"]),
    ]
    nodes += [
        helper.make_node("MatMul", [f"work{index}", "square"], [f"work{index + 1}"]) for index in range(matrix_products)
    ]
    nodes += [
        helper.make_node("Reshape", [f"work{matrix_products}", "wide"], ["done"]),
        helper.make_node("ReduceSum", ["done", "axis"], ["nothing"], keepdims=1),
        helper.make_node("Add", ["checked", "nothing"], ["logits"]),
    ]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "sign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 2])],
        [tensor for tensor in initial if tensor.name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def chain_models() -> dict[str, onnx.ModelProto]:
    """Two exits of one network: whole as `small` and `large`, and its stages `first` and `second`.

    The state is x itself, FP32 [n, 4], called `hidden_0`. Logits are plus and minus `SMALL` or `LARGE` times x; the
    second exit's are not finite where x1 is under -1e6, and take x3 products of large matrices to compute.
    """
    state = helper.make_node("Identity", ["x"], ["hidden_0"])
    return {
        "small": _graph(_exit("x", SMALL), "x"),
        "large": _graph([state, *_slow_exit("hidden_0")], "x"),
        "first": _graph([state, *_exit("x", SMALL)], "x", "hidden_0"),
        "second": _graph(_slow_exit("hidden_0"), "hidden_0"),
    }


def write_chain(repository: Repository, name: str, default_slo_s: float = 10.0, revision: str = "1") -> None:
    """Publish those two exits with what they answer on 400 rows: the second is always right, the first when it is sure.

    Input and labels are those of `write_family`; the label is the sign of `LARGE` times x.
    """
    models = chain_models()
    rows = np.random.default_rng(4).standard_normal((400, 4)).astype(np.float32)
    scores = {"small": rows @ np.array(SMALL, np.float32), "large": rows @ np.array(LARGE, np.float32)}
    label = (scores["large"] > 0).astype(np.int64)
    evidence = {
        variant: (label, (score > 0).astype(np.int64), (1 / (1 + np.exp(-2 * np.abs(score)))).astype(np.float32))
        for variant, score in scores.items()
    }
    variants = {variant: (models[variant], float((e[1] == label).mean())) for variant, e in evidence.items()}
    stages = {stage: models[stage] for stage in ("first", "second")}
    paths = {"small": ("first",), "large": ("first", "second")}
    write_family(
        repository, name, variants, default_slo_s, evidence=evidence, stages=stages, paths=paths, revision=revision
    )


def looking_up(factor: float = 1.0) -> onnx.ModelProto:
    """A model that looks its answer up in a table of 77 kB: the sign of x0, with logits of plus and minus `factor`."""
    table = np.zeros((600, 32), np.float32)
    table[:2, :2] = [[1, -1], [-1, 1]]
    nodes = [
        helper.make_node("Slice", ["x", "begin", "end", "columns"], ["x0"]),
        helper.make_node("Greater", ["x0", "zero"], ["positive"]),
        helper.make_node("Cast", ["positive"], ["ids"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Reshape", ["rows", "flat"], ["flat_rows"]),
        helper.make_node("MatMul", ["flat_rows", "head"], ["logits"]),
    ]
    initial: dict[str, NDArray[Any]] = {
        "begin": np.array([0], np.int64),
        "end": np.array([1], np.int64),
        "columns": np.array([1], np.int64),
        "zero": np.zeros((1, 1), np.float32),
        "flat": np.array([-1, 32], np.int64),
        "table": table,
        "head": np.eye(32, 2, dtype=np.float32) * np.float32(factor),
    }
    graph = helper.make_graph(
        nodes,
        "looks_up",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 2])],
        [numpy_helper.from_array(value, name) for name, value in initial.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def share_family(repository: Repository, name: str) -> None:
    """Publish the active revision once more, with what its variants share stored once, as a build does."""
    folder = repository.open(name)
    manifest = folder.manifest
    with repository.new_staging(name) as staging:
        for entry in manifest.files:
            (staging / entry.path).parent.mkdir(exist_ok=True)
            (staging / entry.path).write_bytes(folder.file(entry.path).read_bytes())
        moved = share_weights(staging, {variant.name: variant.model_file for variant in manifest.variants}, {})
        variants = tuple(v.model_copy(update={"model_file": moved.files[v.model_file]}) for v in manifest.variants)
        shared = {"revision": "shared", "variants": variants, "graphs": moved.graphs, "files": ()}
        repository.publish(manifest.model_copy(update=shared), staging)


def _exit(source: str, weights: tuple[float, ...], logits: str = "logits") -> list[onnx.NodeProto]:
    """Logits of minus and plus `weights` times the source."""
    both = np.array(weights, np.float32).reshape(4, 1) @ np.array([[-1, 1]], np.float32)
    return [_constant(f"{logits}_w", both), helper.make_node("MatMul", [source, f"{logits}_w"], [logits])]


def _slow_exit(source: str) -> list[onnx.NodeProto]:
    """The exit of the weights `LARGE`, which breaks and dawdles as the columns 1 and 3 of the source say."""
    product = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["and_on"]),
            helper.make_node("MatMul", ["work", "square"], ["worked"]),
        ],
        "product",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("work", TensorProto.FLOAT, [WIDTH, WIDTH]),
        ],
        [
            helper.make_tensor_value_info("and_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("worked", TensorProto.FLOAT, [WIDTH, WIDTH]),
        ],
    )
    return [
        *_exit(source, LARGE, "sound"),
        _constant("columns", np.eye(4, dtype=np.float32)[:, [1, 3]]),
        helper.make_node("MatMul", [source, "columns"], ["told"]),
        helper.make_node("Split", ["told"], ["x1", "x3"], axis=1, num_outputs=2),
        _constant("limit", np.array([1e6 + 1], np.float32)),
        helper.make_node("Add", ["x1", "limit"], ["shifted"]),
        helper.make_node("Log", ["shifted"], ["log"]),
        helper.make_node("Sub", ["log", "log"], ["zero_or_nan"]),
        helper.make_node("ReduceMax", ["x3"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["turns"], to=TensorProto.INT64),
        _constant("start", np.array(True)),
        _constant("square", np.eye(WIDTH, dtype=np.float32)),
        _constant("nothing", np.zeros((WIDTH, WIDTH), np.float32)),
        helper.make_node("Loop", ["turns", "start", "nothing"], ["done"], body=product),
        helper.make_node("ReduceSum", ["done"], ["zero"], keepdims=0),
        helper.make_node("Add", ["sound", "zero_or_nan"], ["checked"]),
        helper.make_node("Add", ["checked", "zero"], ["logits"]),
    ]


def _constant(name: str, value: NDArray[Any]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name))


def _graph(nodes: Sequence[onnx.NodeProto], source: str, *states: str) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "exit",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, ["rows", 4])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 2]),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 4]) for name in states),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
