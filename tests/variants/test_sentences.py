"""Strategies on text: a random encoder in the place of the pretrained one, sentences of four words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor

from variants.families.sentiment import data, recipe
from variants.families.sentiment.model import INNER, WIDTH
from variants.families.sentiment.recipe import MAX_TOKENS, ExitsOfMiniLM
from variants.families.sentiment.train import Schedule
from variants.families.sentiment.workbench import SentenceWorkbench, open_sentences
from variants.preparation import ATTENTION_MASK, INPUT_IDS, LOGITS
from variants.session import open_session
from variants.spec import LabelledRows
from variants.strategies.evidence import summary
from variants.strategies.sentences import reports
from variants.training.export import export_model
from variants.training.settings import FitSettings

WORDS = ["[UNK]", "[MASK]", "good", "bad", "film", "plot"]
LAYER = {
    **dict.fromkeys(("attention.self.query", "attention.self.key", "attention.self.value"), (WIDTH, WIDTH)),
    "attention.output.dense": (WIDTH, WIDTH),
    "intermediate.dense": (INNER, WIDTH),
    "output.dense": (WIDTH, INNER),
}
SETTINGS = FitSettings(epochs=2, batch=16, rate=1e-3)

pytestmark = pytest.mark.usefixtures("one_thread")


def pretrained() -> dict[str, Tensor]:
    """A checkpoint of two layers, by BERT's names."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        "embeddings.word_embeddings.weight": torch.randn(len(WORDS), WIDTH, generator=generator),
        "embeddings.position_embeddings.weight": torch.zeros(MAX_TOKENS, WIDTH),
        "embeddings.token_type_embeddings.weight": torch.zeros(2, WIDTH),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        for name, shape in LAYER.items():
            weights[f"{layer}.{name}.weight"] = 0.02 * torch.randn(shape, generator=generator)
            weights[f"{layer}.{name}.bias"] = torch.zeros(shape[0])
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    return weights | {
        f"{norm}.{kind}": value
        for norm in norms
        for kind, value in (("weight", torch.ones(WIDTH)), ("bias", torch.zeros(WIDTH)))
    }


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SentenceWorkbench:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 120)
    texts = np.empty(len(labels), dtype=object)
    texts[:] = [
        " ".join([("bad", "good")[label], *random.choice(["film", "plot"], random.integers(1, 6))]).encode()
        for label in labels
    ]
    tokenizer = Tokenizer(WordPiece({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    monkeypatch.setattr(recipe, "TRAINING_ROWS", 60)
    monkeypatch.setattr(data, "labelled_sentences", lambda cache: LabelledRows({data.INPUT: texts}, labels))
    monkeypatch.setattr(data, "pretrained_encoder", lambda cache: (pretrained(), tokenizer.to_str().encode()))
    exits = ExitsOfMiniLM(2, Schedule(2, 1e-3), 20)
    family = exits.family(name="exits", description="", default_slo_s=0.1, expected_s={})
    staging = tmp_path / "staging"
    staging.mkdir()
    return open_sentences(exits, family, tmp_path / "cache", staging, lambda line: None)


def test_both_strategies_share_their_networks(at: SentenceWorkbench) -> None:
    """Shrinking starts from the deep network, growing from the shallow one; both end with the same student."""
    shrink, grow = reports(at, 1, 0, SETTINGS)
    assert ["original", "shrunk", "improved", "patient"] == list(shrink.points)
    assert ["original", "grown", "improved", "patient"] == list(grow.points)
    assert shrink.points["original"] is grow.points["grown"]
    assert shrink.points["shrunk"] is grow.points["original"]
    sizes = {report.points[role].size_bytes for report in (shrink, grow) for role in ("improved", "patient")}
    assert 1 == len(sizes)
    assert max(sizes) < 0.6 * shrink.points["original"].size_bytes
    assert "of that recovered, improved" in summary([shrink])
    assert "improved over original" in summary([grow])


def test_what_was_taught_is_kept(at: SentenceWorkbench) -> None:
    """The same again trains nothing; another seed, or more epochs, does."""
    reports(at, 1, 0, SETTINGS)
    folder = at.context.cache / "weights"
    first = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert 4 == len(first)
    reports(at, 1, 0, SETTINGS)
    assert first == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    reports(at, 1, 1, SETTINGS)
    assert 7 == len([path for path in folder.rglob("*") if path.is_file()])


def test_the_joint_network_is_that_of_the_family_s_build(at: SentenceWorkbench) -> None:
    """Under the build's own name, so that what a build trained is not trained again; its last exit answers."""
    model = at.fine_tuned(2, at.context.spec.seed, joint=True)
    assert ["exits.safetensors"] == [path.name for path in (at.context.cache / "weights").iterdir()]
    network, _ = at.exits.trained(at.context, at.dataset, "exits", 2)
    ids, mask = at.test.rows.take(slice(0, 5)).inputs
    with torch.inference_mode():
        assert torch.equal(network(ids, mask)[-1], model.module(ids, mask))


def test_embeddings_stay_as_they_were_and_sentences_may_have_any_length(at: SentenceWorkbench, tmp_path: Path) -> None:
    """Layers learn, words do not; the exported graph answers as the module does, padded or not."""
    begun = pretrained()["embeddings.word_embeddings.weight"]
    model = at.fine_tuned(1, 0)
    assert torch.equal(begun, model.module.get_parameter("encoder.words.weight"))
    assert 1 == at.mask_id
    export_model(model, tmp_path / "model.onnx")
    for rows in (1, 9):
        ids, mask = at.test.rows.take(slice(0, rows)).inputs
        feeds = {INPUT_IDS: ids.numpy(), ATTENTION_MASK: mask.numpy()}
        given = open_session(tmp_path / "model.onnx").run(feeds)[LOGITS]
        assert np.abs(given - model.reference()(feeds)).max() < 1e-4
