"""Where strategies work on the sentences: rows as tensors, networks that answer with one exit, kept once trained."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from variants.architectures.trained import code_of, parts_of
from variants.families.sentiment import data
from variants.families.sentiment.model import MultiExitEncoder, from_pretrained
from variants.families.sentiment.recipe import MAX_TOKENS, TOKENIZER_FILE, ExitsOfMiniLM
from variants.preparation import ATTENTION_MASK, INPUT_IDS, Preparer
from variants.spec import BuildContext, BuildError, Dataset, FamilySpec, LabelledRows
from variants.strategies.bench import Bench
from variants.training import text_augmentation
from variants.training.keeping import kept_model
from variants.training.model import Model
from variants.training.recipe import Pipeline, Recipe, Run
from variants.training.rows import Rows, TrainingData
from variants.weights import content_key

MASK_TOKEN = "[MASK]"  # noqa: S105 - a word of the vocabulary


class LastExit(nn.Module):
    """An encoder that answers with its last exit alone; its embeddings are frozen, as in the family's own training."""

    def __init__(self, encoder: MultiExitEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        for part in (encoder.words, encoder.embedding_norm):
            part.requires_grad_(False)
        encoder.positions.requires_grad_(False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int64 [n, t] and [n, t] to logits float32 [n, labels]."""
        logits: Tensor = self.encoder(input_ids, attention_mask)[-1]
        return logits


@dataclass(frozen=True, slots=True, eq=False)
class SentenceWorkbench:
    """`test` is what is measured when all is chosen. Networks are kept in `cache` under what they depend on."""

    exits: ExitsOfMiniLM
    context: BuildContext
    dataset: Dataset
    data: TrainingData
    test: Bench
    mask_id: int
    digest: str

    def fine_tuned(self, depth: int, seed: int, *, joint: bool = False) -> Model:
        """Return the first `depth` layers trained in the family's way: for the last exit, or `joint`ly for all."""
        context = replace(self.context, spec=replace(self.context.spec, seed=seed))
        # The network of the family's own build is found again.
        own = joint and depth == self.exits.depth and seed == self.context.spec.seed
        name = context.spec.name + ("" if own else f"-{'joint' if joint else 'alone'}-{depth}-seed-{seed}")
        network, _ = self.exits.trained(context, self.dataset, name, depth, None if joint else (depth,))
        return self._model(f"MiniLM's first {depth} layers, fine-tuned", network)

    def taught(self, depth: int, seed: int, recipe: Recipe | Pipeline, depends: str) -> Model:
        """Return the pretrained first `depth` layers after a recipe; `depends` says what it holds beside settings.

        Interrupted, it goes on from its last whole epoch.
        """
        weights, _ = data.pretrained_encoder(self.context.cache)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self._model(f"MiniLM's first {depth} layers", from_pretrained(weights, depth, MAX_TOKENS))
        settings = f"{depth} layers, seed {seed}, {recipe!r}, {depends}, torch {torch.__version__}"
        code = code_of(model.module, model.module.get_submodule("encoder"), *parts_of(recipe))
        key = content_key(settings, self.digest, *code, Path(inspect.getfile(text_augmentation)))
        path = self.context.cache / "weights" / "sentences" / f"{key[:24]}.pt"
        run = Run(seed, checkpoints=path.with_suffix(".unfinished"))
        return kept_model(path, key, lambda: recipe(model, self.data, run))

    def _model(self, name: str, encoder: MultiExitEncoder) -> Model:
        ids, mask = (values[:2] for values in self.data.train.inputs)
        tokens = {1: "tokens"}
        axes = {INPUT_IDS: tokens, ATTENTION_MASK: tokens}
        return Model(name, LastExit(encoder), {INPUT_IDS: ids, ATTENTION_MASK: mask}, dynamic_axes=axes)


def open_sentences(
    exits: ExitsOfMiniLM, family: FamilySpec, cache: Path, folder: Path, log: Callable[[str], None]
) -> SentenceWorkbench:
    """Load the family's sentences; the tokenizer is written into `folder`. Raises `BuildError` as `load` does."""
    with tempfile.TemporaryDirectory(prefix="pareto-sentences-") as scratch:
        context = BuildContext(family, folder, Path(scratch), cache, lambda _: None, log)
        dataset = family.load(context)
    preparer = context.preparer()
    train, validation, test = (tensors(part, preparer) for part in (dataset.train, dataset.validation, dataset.test))
    mask_id = Tokenizer.from_file(str(folder / TOKENIZER_FILE)).token_to_id(MASK_TOKEN)
    if mask_id is None:
        raise BuildError(f"{family.name}: its tokenizer has no {MASK_TOKEN} to hide words behind")
    digest = content_key(*(values.numpy().tobytes() for values in (*train.inputs, train.labels)))
    return SentenceWorkbench(exits, context, dataset, TrainingData(train, validation), Bench(test), mask_id, digest)


def tensors(rows: LabelledRows, preparer: Preparer) -> Rows:
    """Return sentences as token ids and attention mask, int64 [n, longest], with their labels."""
    feeds = preparer.collate(preparer.prepare(rows.inputs).values)
    inputs = (torch.from_numpy(feeds[INPUT_IDS]), torch.from_numpy(feeds[ATTENTION_MASK]))
    return Rows(inputs, torch.from_numpy(rows.labels), mask=1)
