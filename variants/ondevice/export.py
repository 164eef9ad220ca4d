"""From a variant to a file for devices, checked and measured here with the runtime that devices have.

A file takes one row at a time, of text a fixed number of tokens: shorter rows are padded, longer ones lose their ends,
and how many did is recorded. Quality is that of the revision's samples, compared row by row with the variant as it is
served. Latencies are this machine's; they rank files, and say nothing of a phone.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from variants.atomic import sha256_of
from variants.fingerprint import machine_fingerprint
from variants.manifest import EXPORTS_FOLDER, FamilyManifest, TextPreparation, VariantManifest
from variants.measurements import Parity
from variants.ondevice.records import SUFFIXES, Export, Target, save_export
from variants.paired import compare
from variants.porting.litert_file import write_litert
from variants.porting.ports import MOST_FLIPS, parity_between
from variants.porting.shapes import Signature, signature
from variants.porting.tools import run_tool
from variants.preparation import ATTENTION_MASK, LOGITS, Feeds, Preparer, Row, open_preparation
from variants.recipes.artifact import EXPORT
from variants.revision import RepositoryError, RevisionFolder
from variants.runtimes.table import ONNXRUNTIME
from variants.session import Session, open_file
from variants.spec import BuildError
from variants.timing import TAIL

_PASSES = 3
"""As often as the tool that measures the other runtimes answers each row; the least time of each counts."""


def exportable(manifest: FamilyManifest) -> tuple[VariantManifest, ...]:
    """Return the float variants on onnxruntime, the most accurate first: what files for devices are made from."""
    floats = [one for one in manifest.variants if one.runtime == ONNXRUNTIME and one.recipe == EXPORT]
    return tuple(sorted(floats, key=lambda one: (-one.quality.value, one.size_bytes)))


def export_variant(
    folder: RevisionFolder,
    variant: VariantManifest,
    target: Target,
    *,
    tokens: int | None = None,
) -> Export:
    """Write a file for devices, measure it, and keep both beside the revision.

    `tokens` is by default the middle size class. Raises `BuildError` for a variant or a number of tokens that it cannot
    be, `ToolError` where the converters are missing or fail, `RepositoryError`, `ModelLoadError`.
    """
    manifest = folder.manifest
    if variant not in exportable(manifest):
        known = ", ".join(one.name for one in exportable(manifest)) or "none"
        raise BuildError(f"{variant.name} is no float variant on {ONNXRUNTIME}; those of {manifest.name}: {known}")
    tokens = _tokens(manifest, tokens)
    preparer = open_preparation(folder)
    samples = folder.samples()
    rows = preparer.prepare({tensor.name: samples[tensor.name] for tensor in manifest.inputs}).values
    fitted = [row if row.ndim > 1 or len(row) <= tokens else _cut(row, tokens) for row in rows]
    shape = signature(preparer.collate(rows[:1]), 1, tokens)
    file = f"{EXPORTS_FOLDER}/{_file_name(variant, target, shape)}"
    path = folder.path / file
    session = open_file(folder, variant.model)
    served, served_s = _serve(session, preparer, rows)
    whole = [number for number, row in enumerate(rows) if fitted[number] is row]
    with _beside(path) as made:
        tools = _convert(folder.file(variant.model_file), made, shape, target)
        answers, seconds, measured = _measure(made, target, shape, preparer, fitted)
        parity = _parity(answers, served, whole, variant.name)
        right, served_right = (logits.argmax(axis=1) == samples["label"] for logits in (answers, served))
        difference = compare(right, served_right)
        export = Export(
            variant=variant.name,
            target=target,
            tokens=tokens,
            file=file,
            sha256=sha256_of(made),
            size_bytes=made.stat().st_size,
            accuracy=float(right.mean()),
            server_accuracy=float(served_right.mean()),
            difference=difference.difference,
            interval=(difference.low, difference.high),
            p_value=difference.p_value,
            rows=len(rows),
            cut_rows=len(rows) - len(whole),
            parity=parity,
            median_s=float(np.median(seconds)),
            tail_s=float(np.quantile(seconds, TAIL)),
            server_median_s=float(np.median(served_s)),
            load_s=measured["load_s"],
            memory_bytes=measured["memory_bytes"],
            machine=machine_fingerprint(1).description,
            tools=tools,
            taken=datetime.now(UTC),
        )
        made.replace(path)
    save_export(folder, export)
    return export


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield where to write a file that is to be at `path` once it is checked; what is not moved there is removed.

    Raises `RepositoryError` where the disk does not take it.
    """
    try:
        path.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as scratch:
            yield Path(scratch) / path.name
    except OSError as error:
        raise RepositoryError(f"{path}: cannot be written: {error.strerror or error}") from error


def _tokens(manifest: FamilyManifest, tokens: int | None) -> int:
    longest = manifest.sizes[-1]
    if tokens is None:
        return manifest.sizes[len(manifest.sizes) // 2]
    least = 3 if isinstance(manifest.preparation, TextPreparation) else 1
    if not least <= tokens <= longest:
        raise BuildError(f"{tokens} tokens: expected from {least} to {longest}, as rows of {manifest.name} have")
    return tokens


def _cut(row: Row, tokens: int) -> Row:
    """A row of text with so many tokens: its first ones, and the one that ends every row."""
    return np.concatenate([row[: tokens - 1], row[-1:]])


def _file_name(variant: VariantManifest, target: Target, shape: Signature) -> str:
    return f"{variant.name}-{shape.name}{SUFFIXES[target]}"


def _convert(graph: Path, path: Path, shape: Signature, target: Target) -> str:
    if target == "litert":
        return write_litert(graph, path, [shape])
    order = {"graph": str(graph), "target": str(path), "signature": shape._asdict()}
    tools: str = run_tool("variants.porting.executorch_tool", order)["tools"]
    return tools


def _measure(
    path: Path, target: Target, shape: Signature, preparer: Preparer, rows: Sequence[Row]
) -> tuple[NDArray[np.float32], list[float], Mapping[str, Any]]:
    """Logits [n, k] and seconds [n] of all rows through the file, and what else was measured."""
    feeds = [_padded(preparer.collate([row]), shape) for row in rows]
    with tempfile.TemporaryDirectory(prefix="pareto-export-") as scratch:
        given, logits = Path(scratch) / "feeds.npz", Path(scratch) / "logits.npy"
        arrays: dict[str, Any] = {name: np.concatenate([one[name] for one in feeds]) for name in shape.shapes}
        np.savez(given, **arrays)
        order = {
            "file": str(path),
            "target": target,
            "feeds": str(given),
            "inputs": list(shape.shapes),
            "logits": str(logits),
        }
        measured: Mapping[str, Any] = run_tool("variants.ondevice.measure_tool", order)
        return np.load(logits), measured["seconds"], measured


def _padded(feeds: Feeds, shape: Signature) -> Feeds:
    """One row as the file takes it: text ends with zeros, which the mask hides."""
    if ATTENTION_MASK not in feeds:
        return feeds
    padded: Feeds = {}
    for name, array in feeds.items():
        padded[name] = np.zeros(tuple(shape.shapes[name]), array.dtype)
        padded[name][:, : array.shape[1]] = array
    return padded


def _serve(session: Session, preparer: Preparer, rows: Sequence[Row]) -> tuple[NDArray[np.float32], list[float]]:
    """Logits and seconds of each row through the variant as it is served, alone."""
    feeds = [preparer.collate([row]) for row in rows]
    logits = np.concatenate([session.run(one)[LOGITS] for one in feeds])
    seconds = np.min([[_seconds(session, one) for one in feeds] for _ in range(_PASSES)], axis=0)
    return logits, seconds.tolist()


def _seconds(session: Session, feeds: Feeds) -> float:
    begun_s = time.perf_counter()
    session.run(feeds)
    return time.perf_counter() - begun_s


def _parity(answers: NDArray[np.float32], served: NDArray[np.float32], whole: Sequence[int], variant: str) -> Parity:
    if answers.shape != served.shape or not np.isfinite(answers).all():
        raise BuildError(f"the file gives logits {list(answers.shape)} that are not all finite, as {variant} does")
    if not whole:
        raise BuildError("no row of the samples has so few tokens: choose more")
    parity = parity_between(answers[whole], served[whole], variant)
    if parity.label_flips > MOST_FLIPS:
        raise BuildError(f"the file: {100 * parity.label_flips:.1f} % of its labels are not those of {variant}")
    return parity
