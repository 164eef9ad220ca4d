"""How a family of pretrained image classifiers comes about: networks at several resolutions, in fp32 and in int8.

Every variant takes the same picture and shrinks it inside its graph, so a client need not know who answers. Nothing is
trained: what the largest network answers is taken for right, and quality is agreement with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from variants.evaluate import predict
from variants.families.about import About
from variants.families.vision.network import EfficientNetLite, Pretrained, pretrained
from variants.families.vision.pictures import SIDE, Photographs
from variants.fingerprint import available_cores
from variants.manifest import TensorPreparation, TensorSpec
from variants.preparation import Feeds
from variants.recipes.artifact import Artifact
from variants.recipes.export import export
from variants.recipes.slim import slim
from variants.recipes.static_int8 import IMAGE_OPERATORS, static_int8
from variants.session import open_session
from variants.spec import BuildContext, Candidate, Dataset, FamilySpec, LabelledRows

INPUT = "image"
CALIBRATION_BATCH = 12
ANSWERED_AT_ONCE = 64

Load = Callable[[Pretrained, int, Path], EfficientNetLite]


@dataclass(frozen=True, slots=True)
class Rung:
    """A network at a resolution: `side` pixels of height and width."""

    network: Pretrained
    side: int

    @property
    def name(self) -> str:
        """Its name without a precision."""
        return f"{self.network.name}-{self.side}"


@dataclass(frozen=True, slots=True)
class Views:
    """How much of the photographs each part of the data gets, and how many pictures are made of each thing in it."""

    shares: tuple[float, float, float] = (0.15, 0.35, 0.5)
    train: int = 4
    validation: int = 6
    test: int = 8


@dataclass(frozen=True, slots=True)
class LadderOfResolutions:
    """Pretrained networks, the last of which answers what counts as right.

    `photographs` and `load` fetch into a cache folder what pictures are made of, and a network for a resolution.
    """

    rungs: tuple[Rung, ...]
    photographs: Callable[[Path], Photographs]
    load: Load = pretrained
    views: Views = Views()

    def family(self, **about: Unpack[About]) -> FamilySpec:
        """Return the family that is built so."""
        return FamilySpec(
            **about,
            inputs=(TensorSpec(name=INPUT, datatype="UINT8", shape=(-1, SIDE, SIDE, 3)),),
            # Colours go into the graphs as they are, which normalise them once they are few.
            preparation=TensorPreparation(),
            load=self.rows,
            build=self.build,
            labelled=False,
            trains=False,
            # A row is 0.8 MB of float32, and batches gain little here.
            max_batch=8,
            samples=256,
        )

    def rows(self, context: BuildContext) -> Dataset:
        """Return pictures with the largest network's answers to them, the parts without a photograph in common."""
        seed, views = context.spec.seed, self.views
        parts = self.photographs(context.cache).parts(views.shares, seed)
        context.advance(0.1)
        pictures = [
            part.pictures(count, seed + number)
            for number, (part, count) in enumerate(zip(parts, (views.train, views.validation, views.test), strict=True))
        ]
        answers = self._answers(context, np.concatenate(pictures), lambda done: context.advance(0.3 + 0.7 * done))
        ends = np.cumsum([len(part) for part in pictures])[:-1]
        shuffled = np.random.default_rng(seed)
        labelled = (
            LabelledRows({INPUT: part}, labels).take(shuffled.permutation(len(part)))
            for part, labels in zip(pictures, np.split(answers, ends), strict=True)
        )
        return Dataset(*labelled)

    def build(self, context: BuildContext, dataset: Dataset) -> Iterator[Candidate]:
        """Yield every network at its resolution, in fp32 and in int8."""
        calibration = _calibration(context, dataset)
        for rung in self.rungs:
            module = self.load(rung.network, rung.side, context.cache)
            fp32 = exported(rung, module, context.scratch)
            reference = _reference(module)
            yield Candidate(f"{rung.name}-fp32", partial(_copied, fp32), reference=reference)
            yield Candidate(
                f"{rung.name}-int8",
                partial(_in_eight_bits, fp32, calibration),
                reference=reference,
            )

    def _answers(
        self, context: BuildContext, pictures: NDArray[np.uint8], advance: Callable[[float], None]
    ) -> NDArray[np.int64]:
        """Return the likeliest class int64 [n] under the largest network, through the session that serves it."""
        largest = self.rungs[-1]
        graph = exported(largest, self.load(largest.network, largest.side, context.cache), context.scratch)
        session, preparer, jobs = open_session(graph.path), context.preparer(), max(1, int(available_cores()))
        answers: list[NDArray[np.int64]] = []
        # All of them as float32 would take a gigabyte.
        for start in range(0, len(pictures), ANSWERED_AT_ONCE):
            rows = preparer.prepare({INPUT: pictures[start : start + ANSWERED_AT_ONCE]}).values
            (logits,) = predict([session], preparer, rows, jobs=jobs)
            answers.append(logits.argmax(axis=1).astype(np.int64))
            advance(min(1.0, (start + ANSWERED_AT_ONCE) / len(pictures)))
        return np.concatenate(answers)


def exported(rung: Rung, module: EfficientNetLite, folder: Path) -> Artifact:
    """Write a network's graph into a folder; paddings and batch norms become part of its convolutions."""
    example = {INPUT: torch.zeros(2, SIDE, SIDE, 3)}
    lineage = (f"EfficientNet-{rung.network.name}", f"at {rung.side} pixels")
    raw = export(module, example, folder / f"{rung.name}.raw.onnx", lineage=lineage)
    return replace(slim(raw, folder / f"{rung.name}.onnx"), lineage=lineage)


def _copied(source: Artifact, path: Path) -> Artifact:
    path.write_bytes(source.path.read_bytes())
    return replace(source, path=path)


def _in_eight_bits(source: Artifact, calibration: Sequence[Feeds], path: Path) -> Artifact:
    return static_int8(source, path, calibration, operators=IMAGE_OPERATORS)


def _calibration(context: BuildContext, dataset: Dataset) -> list[Feeds]:
    """Return the first part of the data in batches of equal shape."""
    preparer = context.preparer()
    rows = preparer.prepare(dataset.train.inputs).values
    batch = min(CALIBRATION_BATCH, len(rows))
    return [preparer.collate(rows[start : start + batch]) for start in range(0, len(rows) - batch + 1, batch)]


def _reference(module: EfficientNetLite) -> Callable[[Feeds], NDArray[np.float32]]:
    """Return the logits of the network in torch, for the parity check."""

    def logits(feeds: Feeds) -> NDArray[np.float32]:
        with torch.inference_mode():
            answers: NDArray[np.float32] = module(torch.from_numpy(feeds[INPUT])).numpy()
            return answers

    return logits
