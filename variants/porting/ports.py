"""Ports: variants of a revision on other runtimes. Nothing is trained; a port is the same network.

OpenVINO reads the same files, so such a port takes no space on the disk, and its stages are ported with it. torch and
LiteRT read files of their own, made from float graphs alone: their quantized operators are others.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from variants import evaluate
from variants.assessment import MadeVariant
from variants.manifest import StageManifest, VariantManifest
from variants.measurements import BATCH_TOLERANCE, Parity
from variants.porting.litert_file import write_litert
from variants.porting.program import write_program
from variants.porting.shapes import signatures
from variants.preparation import Preparer, Row
from variants.recipes.artifact import EXPORT, Artifact
from variants.revision import RevisionFolder
from variants.room import raise_if_full
from variants.runtimes.table import ONNXRUNTIME, RUNTIMES, Runtime
from variants.selection import not_competing
from variants.session import Session, open_file
from variants.spec import BuildError

PARITY_ROWS = 256
MOST_FLIPS = 0.02
"""The share of labels that may differ from those of the same network on onnxruntime, where that one was decided.
Rounding to int8 in another order or computing in bfloat16 changes labels of rows that were not, of a thousand classes
as many as 10 %. Only another network changes others."""
DECIDED = 3.0
"""A row is decided where its label is at least so many times as likely as any other."""
FLOAT_ONLY = frozenset({"openvino-bf16", "torch", "litert"})
"""Runtimes for which only float graphs are ported: they would compute quantized ones no better, or cannot."""


@dataclass(frozen=True, slots=True)
class Port:
    """A variant on another runtime: what it is a port of, what was made, and its files as the manifest names them.

    `stages` are those of its chain; they are new to the revision.
    """

    of: VariantManifest
    made: MadeVariant
    parity: Parity
    model_file: str
    stages: tuple[StageManifest, ...]


def port_name(variant: str, runtime: str) -> str:
    """Return what a variant is called on another runtime."""
    return f"{variant}-{runtime}"


def wanted_ports(
    variants: Sequence[VariantManifest],
    runtimes: Sequence[str],
    only: Sequence[str] = (),
    batch_tolerance: float = BATCH_TOLERANCE,
) -> list[tuple[VariantManifest, Runtime]]:
    """Return which variants are to be ported to which runtime: those that compete and are not ported yet.

    Who competes depends on the `batch_tolerance`. With `only`, those that it names. Raises `BuildError` where it names
    one that does not exist or is a port itself, and where one that it names, or all that there are, can be ported to
    none of the runtimes.
    """
    known = {variant.name: variant for variant in variants}
    for name in only:
        if name not in known or known[name].runtime != ONNXRUNTIME:
            originals = ", ".join(variant.name for variant in variants if variant.runtime == ONNXRUNTIME)
            raise BuildError(f"no variant {name!r} on {ONNXRUNTIME} to port, known are {originals}")
    left_out = not_competing(variants, batch_tolerance)
    chosen = [known[name] for name in only] or [
        variant for variant in variants if variant.runtime == ONNXRUNTIME and variant.name not in left_out
    ]
    possible = [
        (variant, RUNTIMES[runtime])
        for runtime in runtimes
        for variant in chosen
        if runtime not in FLOAT_ONLY or variant.recipe == EXPORT
    ]
    able = {variant.name for variant, _ in possible}
    unable = [variant.name for variant in chosen if variant.name not in able]
    if runtimes and unable and (only or not able):
        floats = [one.name for one in variants if one.runtime == ONNXRUNTIME and one.recipe == EXPORT]
        raise BuildError(
            f"{', '.join(unable)} cannot be ported to {', '.join(runtimes)}, only float variants can: "
            f"{', '.join(floats) or 'there are none'}"
        )
    return [(variant, runtime) for variant, runtime in possible if port_name(variant.name, runtime.name) not in known]


class Porter:
    """Makes the ports of one revision, whose files lie in `folder`; new files are written there.

    `rows` are prepared rows to compare answers on; `log` is told of ports that are left out.
    """

    def __init__(
        self, folder: RevisionFolder, preparer: Preparer, rows: Sequence[Row], log: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._preparer = preparer
        self._rows = rows[:PARITY_ROWS]
        self._log = log
        self.left_out: dict[str, str] = {}

    def make_all(self, wanted: Sequence[tuple[VariantManifest, Runtime]]) -> Iterator[Port | None]:
        """Make one port after the other; None for one that is left out, whose reason is then in `left_out`.

        Raises `OSError` where a disk is full: whatever came next would fail, too.
        """
        for variant, runtime in wanted:
            name = port_name(variant.name, runtime.name)
            try:
                yield self._make(name, variant, runtime)
            except Exception as error:  # noqa: BLE001 - converters and runtimes raise what they like
                raise_if_full(error, self._folder.path, Path(tempfile.gettempdir()))
                self.leave_out(name, runtime, f"{type(error).__name__}: {' '.join(str(error).split())}")
                yield None

    def leave_out(self, name: str, runtime: Runtime, reason: str) -> None:
        """Have no port of that name: remove what was written for it, and say why."""
        self.left_out[name] = reason.replace(f"{self._folder.path}/", "")[:300]
        self._log(f"{name} is left out: {self.left_out[name]}")
        if runtime.rewrites:
            shutil.rmtree(self._folder.path / name, ignore_errors=True)

    def _make(self, name: str, variant: VariantManifest, runtime: Runtime) -> Port:
        file = self._file(name, variant, runtime)
        artifact = Artifact(
            self._folder.file(file), variant.recipe, (*variant.lineage, f"on {runtime.name}"), variant.parameters
        )
        longest = self._folder.manifest.sizes[-1]
        made = MadeVariant(name, artifact, {}, runtime=runtime.name, longest=longest)
        session = made.open(artifact.path)
        parity = self._parity(session, variant)
        stages = self._stages(session, variant, runtime) if not runtime.rewrites else ()
        paths = {stage.name: self._folder.file(stage.file) for stage in stages}
        return Port(variant, replace(made, stages=paths), parity, file, stages)

    def _file(self, name: str, variant: VariantManifest, runtime: Runtime) -> str:
        """What the runtime opens, written where it is not there already."""
        if not runtime.rewrites:
            return variant.model_file
        graph, file = self._folder.file(variant.model_file), f"{name}/model{runtime.suffix}"
        target = self._folder.path / file
        target.parent.mkdir(exist_ok=True)
        sizes = self._folder.manifest.sizes
        feeds = self._preparer.collate([max(self._rows, key=len)] * 3)
        if runtime.suffix == ".pt2":
            write_program(graph, target, feeds, sizes[-1])
        else:
            write_litert(graph, target, signatures(feeds, sizes))
        return file

    def _stages(self, whole: Session, variant: VariantManifest, runtime: Runtime) -> tuple[StageManifest, ...]:
        """The stages of the variant's chain on the runtime; none where they do not answer as the whole does."""
        by_name = {stage.name: stage for stage in self._folder.manifest.stages}
        stages = tuple(
            StageManifest(name=port_name(name, runtime.name), file=by_name[name].file, runtime=runtime.name)
            for name in variant.stages
        )
        chain = [open_file(self._folder, stage.model) for stage in stages]
        if chain and not evaluate.paths_agree(whole, chain, self._preparer, self._rows[:16]):
            self._log(f"{port_name(variant.name, runtime.name)}: its stages do not answer as its whole graph; not used")
            return ()
        return stages

    def _parity(self, session: Session, variant: VariantManifest) -> Parity:
        """Compare on the rows, in batches as evaluation has them."""
        reference = open_file(self._folder, variant.model)
        given, wanted = (evaluate.predict([one], self._preparer, self._rows)[0] for one in (session, reference))
        if given.shape != wanted.shape or not np.isfinite(given).all():
            raise BuildError(f"it gives logits {list(given.shape)} that are not all finite, as {variant.name} does")
        flips = decided_flips(given, wanted / np.float32(variant.temperature))
        if flips > MOST_FLIPS:
            raise BuildError(
                f"{100 * flips:.1f} % of its labels are not those of {variant.name}, which was sure of them"
            )
        return parity_between(given, wanted, variant.name)


def decided_flips(given: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Return the share of labels that differ from a reference's, among the rows where that one is decided.

    Both are logits float32 [n, k], the reference's at a temperature of 1. Where it is decided nowhere, all rows count.
    """
    flipped = given.argmax(axis=1) != wanted.argmax(axis=1)
    ranked = np.sort(wanted, axis=1)
    # The likeliest class is ahead of the second by the logarithm of how many times as likely it is.
    decided = (ranked[:, -1:] - ranked[:, -2:-1] >= math.log(DECIDED)).all(axis=1)
    return float(flipped[decided].mean() if decided.any() else flipped.mean())


def parity_between(given: NDArray[np.float32], wanted: NDArray[np.float32], reference: str) -> Parity:
    """Compare logits float32 [n, k] of the same rows with those of a reference."""
    return Parity(
        reference=reference,
        max_relative_error=float(np.abs(given - wanted).max()) / max(1.0, float(np.abs(wanted).max())),
        label_flips=float((given.argmax(axis=1) != wanted.argmax(axis=1)).mean()),
        compared_rows=len(given),
    )
