"""`sentiment`: is a sentence positive or negative? MiniLM with an exit after each of its first four layers.

One joint fine-tune gives five networks of rising depth, L0 to L4. Each is exported as fp32 and as row-wise int8; both
precisions also as a chain of stages, so that an answer at one exit can be deepened at the cost of the remaining layers
only.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from variants.families.sentiment import data, model, train
from variants.families.sentiment.export import AllExits, export_all_exits, reference_logits
from variants.manifest import TensorSpec, TextPreparation
from variants.recipes.artifact import Artifact
from variants.recipes.dynamic_int8 import dynamic_int8
from variants.recipes.rowwise_int8 import rowwise_int8
from variants.spec import BuildContext, BuildStage, Candidate, Dataset, FamilySpec, split
from variants.weights import Weights, content_key, kept_weights

DEPTH = 4
MAX_TOKENS = 64
TOKENIZER_FILE = "tokenizer.json"


def load(context: BuildContext) -> Dataset:
    """Return the rated sentences; write the tokenizer into the revision."""
    rows = data.labelled_sentences(context.cache)
    context.advance(0.5)
    _, tokenizer = data.pretrained_encoder(context.cache)
    (context.staging / TOKENIZER_FILE).write_bytes(tokenizer)
    return split(rows, train=7000, validation=1000, seed=context.spec.seed)


def build(context: BuildContext, dataset: Dataset) -> Iterator[Candidate]:
    """Fine-tune once, or take the weights kept from the last time; yield every exit in every precision."""
    network = _trained(context, dataset)
    fp32 = AllExits("fp32", network, partial(export_all_exits, network, context.scratch / "fp32.onnx"))
    int8 = AllExits("int8", network, lambda: rowwise_int8(fp32.artifact, context.scratch / "int8.onnx"))
    for exit_number in range(DEPTH + 1):
        for precision, exits in (("fp32", fp32), ("int8", int8)):
            yield Candidate(
                f"L{exit_number}-{precision}",
                partial(_whole_and_stages, context, exits, exit_number),
                stages=exits.stages(exit_number),
                reference=reference_logits(network, exit_number),
            )
    yield Candidate(
        f"L{DEPTH}-dynamic",
        lambda path: dynamic_int8(fp32.whole(DEPTH, context.scratch / "deepest.onnx"), path),
        reference=reference_logits(network, DEPTH),
        notes="kept for comparison",
    )


def _whole_and_stages(context: BuildContext, exits: AllExits, exit_number: int, path: Path) -> Artifact:
    whole = exits.whole(exit_number, path)
    for number, stage in enumerate(exits.stages(exit_number)):
        if not (stage_path := context.stage_path(stage)).exists():
            exits.stage(number, stage_path)
    return whole


def _trained(context: BuildContext, dataset: Dataset) -> model.MultiExitEncoder:
    weights, _ = data.pretrained_encoder(context.cache)
    network = model.from_pretrained(weights, DEPTH, MAX_TOKENS)
    texts = b"\0".join(dataset.train.inputs[data.INPUT].tolist())
    code = [Path(inspect.getfile(module)) for module in (data, model, train)]
    settings = f"seed {context.spec.seed}, torch {torch.__version__}, {data.ENCODER_SHA256}, {data.TOKENIZER_SHA256}"
    key = content_key(settings, *code, texts, dataset.train.labels.tobytes())

    def fine_tuned() -> Weights:
        torch.manual_seed(context.spec.seed)
        preparer = context.preparer()
        rows = preparer.prepare(dataset.train.inputs).values
        train.fine_tune(network, preparer, rows, dataset.train.labels, seed=context.spec.seed, advance=context.advance)
        return {name: values.numpy() for name, values in network.state_dict().items() if not _is_frozen(name)}

    kept = kept_weights(context.cache / "weights" / f"{context.spec.name}.safetensors", key, fine_tuned)
    network.load_state_dict({name: torch.from_numpy(values) for name, values in kept.items()}, strict=False)
    return network.eval()


def _is_frozen(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] not in ("layers", "exits")


FAMILY = FamilySpec(
    name="sentiment",
    description="Short English review sentences: negative or positive?",
    labels=("negative", "positive"),
    inputs=(TensorSpec(name=data.INPUT, datatype="BYTES", shape=(-1,)),),
    preparation=TextPreparation(tokenizer_file=TOKENIZER_FILE, max_tokens=MAX_TOKENS),
    load=load,
    build=build,
    default_slo_s=0.1,
    sizes=(16, 32, MAX_TOKENS),
    source=(
        "sentences: movie-review snippets of Hutto and Gilbert, VADER, ICWSM 2014 (vaderSentiment 3.3.2); "
        "encoder: all-MiniLM-L6-v2"
    ),
    licence="sentences: MIT as packaged, texts by third parties; encoder: Apache-2.0, fine-tuned by this build",
    expected_s={
        BuildStage.DATA: 3.0,
        BuildStage.TRAIN: 35.0,
        BuildStage.VARIANTS: 9.0,
        BuildStage.EVALUATE: 30.0,
        BuildStage.PROFILE: 6.0,
        BuildStage.PUBLISH: 2.0,
    },
)
