"""How a family of MiniLM's exits comes about: one joint fine-tune, exported at every exit in two precisions.

Each precision is exported as whole graphs and as a chain of stages, so that an answer at one exit can be deepened at
the cost of the remaining layers only. What the joint fine-tune costs is known from counterparts: networks of the same
layers, rows, schedule and seed, fine-tuned for their last exit alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from variants.families.sentiment import data, model, train
from variants.families.sentiment.export import ALONE, JOINTLY, AllExits, export_all_exits, reference_logits
from variants.manifest import TensorSpec, TextPreparation
from variants.recipes.artifact import Artifact
from variants.recipes.dynamic_int8 import dynamic_int8
from variants.recipes.rowwise_int8 import rowwise_int8
from variants.spec import BuildContext, BuildStage, Candidate, Dataset, FamilySpec, split
from variants.weights import Weights, content_key, kept_weights

MAX_TOKENS = 64
TRAINING_ROWS = 7000
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class ExitsOfMiniLM:
    """The networks that end after each of the first `depth` layers (1 to 6), and after none.

    `validation` rows are kept to calibrate on. With `dynamic`, the deepest exit is also made in plain dynamic int8,
    as a yardstick. `alone` are the exits, 1 to `depth`, that have counterparts.
    """

    depth: int
    schedule: train.Schedule
    validation: int
    dynamic: bool = False
    alone: tuple[int, ...] = (2, 4)

    def family(
        self,
        name: str,
        description: str,
        default_slo_s: float,
        expected_s: Mapping[BuildStage, float],
        samples: int = 512,
    ) -> FamilySpec:
        """Return the family that is built so; at most `samples` rows of its test part are kept for load tests."""
        return FamilySpec(
            name=name,
            description=description,
            labels=("negative", "positive"),
            inputs=(TensorSpec(name=data.INPUT, datatype="BYTES", shape=(-1,)),),
            preparation=TextPreparation(tokenizer_file=TOKENIZER_FILE, max_tokens=MAX_TOKENS),
            load=self.load,
            build=self.build,
            counterparts=self.counterparts,
            default_slo_s=default_slo_s,
            sizes=(16, 32, MAX_TOKENS),
            samples=samples,
            source=(
                "sentences: movie-review snippets of Hutto and Gilbert, VADER, ICWSM 2014 (vaderSentiment 3.3.2); "
                "encoder: all-MiniLM-L6-v2"
            ),
            licence="sentences: MIT as packaged, texts by third parties; encoder: Apache-2.0, fine-tuned by this build",
            expected_s=expected_s,
        )

    def load(self, context: BuildContext) -> Dataset:
        """Return the rated sentences; write the tokenizer into the revision."""
        rows = data.labelled_sentences(context.cache)
        context.advance(0.5)
        _, tokenizer = data.pretrained_encoder(context.cache)
        (context.staging / TOKENIZER_FILE).write_bytes(tokenizer)
        return split(rows, train=TRAINING_ROWS, validation=self.validation, seed=context.spec.seed)

    def build(self, context: BuildContext, dataset: Dataset) -> Iterator[Candidate]:
        """Fine-tune once, or take the weights kept from the last time; yield every exit in every precision."""
        network, facts = self.trained(context, dataset, context.spec.name, self.depth)
        fp32 = AllExits("fp32", network, partial(_exported, network, context.scratch / "fp32.onnx", JOINTLY, facts))
        int8 = AllExits("int8", network, lambda: rowwise_int8(fp32.artifact, context.scratch / "int8.onnx"))
        for exit_number in range(self.depth + 1):
            for precision, exits in (("fp32", fp32), ("int8", int8)):
                yield Candidate(
                    f"L{exit_number}-{precision}",
                    partial(_whole_and_stages, context, exits, exit_number),
                    stages=exits.stages(exit_number),
                    reference=reference_logits(network, exit_number),
                )
        if self.dynamic:
            yield Candidate(
                f"L{self.depth}-dynamic",
                lambda path: dynamic_int8(fp32.whole(self.depth, context.scratch / "deepest.onnx"), path),
                reference=reference_logits(network, self.depth),
                notes="kept for comparison",
            )

    def counterparts(self, context: BuildContext, dataset: Dataset) -> Iterator[Candidate]:
        """Fine-tune a network for each exit of `alone`, as deep as that; yield it in fp32."""
        for number, depth in enumerate(self.alone):
            part = replace(context, advance=partial(_advance_part, context, number, len(self.alone)))
            network, facts = self.trained(part, dataset, f"{context.spec.name}-alone-{depth}", depth, exits=(depth,))
            export = partial(_exported, network, context.scratch / f"alone-{depth}.onnx", ALONE, facts)
            exits = AllExits("alone", network, export)
            yield Candidate(
                f"alone-L{depth}-fp32",
                partial(exits.whole, depth),
                reference=reference_logits(network, depth),
                counterpart=f"L{depth}-fp32",
            )

    def trained(
        self, context: BuildContext, dataset: Dataset, name: str, depth: int, exits: tuple[int, ...] | None = None
    ) -> tuple[model.MultiExitEncoder, Mapping[str, float]]:
        """Return the network of the first `depth` layers, fine-tuned for `exits` (default: all), and what that cost.

        The weights kept under `name` are taken where nothing changed that they depend on.
        """
        weights, _ = data.pretrained_encoder(context.cache)
        # Before the network is made: its classifiers start from random weights.
        torch.manual_seed(context.spec.seed)
        network = model.from_pretrained(weights, depth, MAX_TOKENS)
        texts = b"\0".join(dataset.train.inputs[data.INPUT].tolist())
        code = [Path(inspect.getfile(module)) for module in (data, model, train)]
        settings = f"seed {context.spec.seed}, {self.schedule}, depth {depth}, exits {exits}, {MAX_TOKENS} tokens"
        settings += f", torch {torch.__version__}"
        originals = f"{data.ENCODER_SHA256}, {data.TOKENIZER_SHA256}"
        key = content_key(settings, originals, *code, texts, dataset.train.labels.tobytes())

        def fine_tuned() -> Weights:
            preparer = context.preparer()
            train.fine_tune(
                network,
                preparer,
                preparer.prepare(dataset.train.inputs).values,
                dataset.train.labels,
                self.schedule,
                seed=context.spec.seed,
                advance=context.advance,
                exits=exits,
            )
            return {name: values.numpy() for name, values in network.state_dict().items() if not _is_frozen(name)}

        kept = kept_weights(context.cache / "weights" / f"{name}.safetensors", key, fine_tuned, len(dataset.train))
        state = {name: torch.from_numpy(values) for name, values in kept.weights.items()}
        network.load_state_dict(state, strict=False)
        return network.eval(), kept.facts


def _advance_part(context: BuildContext, number: int, parts: int, done: float) -> None:
    context.advance((number + done) / parts)


def _exported(network: model.MultiExitEncoder, path: Path, trained: str, facts: Mapping[str, float]) -> Artifact:
    return replace(export_all_exits(network, path, trained), facts=facts)


def _whole_and_stages(context: BuildContext, exits: AllExits, exit_number: int, path: Path) -> Artifact:
    whole = exits.whole(exit_number, path)
    for number, stage in enumerate(exits.stages(exit_number)):
        if not (stage_path := context.stage_path(stage)).exists():
            exits.stage(number, stage_path)
    return whole


def _is_frozen(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] not in ("layers", "exits")
