from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from variants.families.sentiment import data, train
from variants.families.sentiment.export import AllExits, export_all_exits, reference_logits
from variants.families.sentiment.model import WIDTH, MultiExitEncoder, from_pretrained
from variants.families.sentiment.recipe import MAX_TOKENS, ExitsOfMiniLM
from variants.families.sentiment.train import Schedule, batches, fine_tune
from variants.preparation import ATTENTION_MASK, INPUT_IDS, LOGITS, Feeds, TextPreparer
from variants.recipes.rowwise_int8 import rowwise_int8
from variants.session import open_session
from variants.spec import BuildContext, Dataset, LabelledRows
from variants.stages import collate_states, cut_states, run_each, run_stages

DEPTH = 2

Exits = tuple[BuildContext, list[tuple[int, object]]]


class Padded(TextPreparer):
    """Collates rows as text is collated, without a tokenizer."""

    def __init__(self) -> None:
        self._padding_id = 0


@pytest.fixture(scope="module")
def network() -> MultiExitEncoder:
    torch.manual_seed(0)
    return MultiExitEncoder(DEPTH, vocabulary=100, max_tokens=16).eval()


@pytest.fixture(scope="module")
def precisions(network: MultiExitEncoder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, AllExits]:
    folder = tmp_path_factory.mktemp("exits")
    fp32 = AllExits("fp32", network, lambda: export_all_exits(network, folder / "fp32.onnx"))
    return {"fp32": fp32, "int8": AllExits("int8", network, lambda: rowwise_int8(fp32.artifact, folder / "int8.onnx"))}


def padded_batch(rows: int, tokens: int) -> Feeds:
    random = np.random.default_rng(rows * tokens)
    mask = (np.arange(tokens) < random.integers(1, tokens + 1, (rows, 1))).astype(np.int64)
    return {INPUT_IDS: random.integers(1, 100, (rows, tokens)) * mask, ATTENTION_MASK: mask}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_chain_of_stages_is_bit_for_bit_the_whole_graph(
    precisions: dict[str, AllExits], precision: str, tmp_path: Path
) -> None:
    """At every exit, and for any batch, the stages one after another answer exactly what the whole graph does."""
    exits = precisions[precision]
    stages = exits.stages(DEPTH)
    for number, name in enumerate(stages):
        exits.stage(number, tmp_path / f"{name}.onnx")
    path = [open_session(tmp_path / f"{name}.onnx") for name in stages]
    wholes = [open_session(exits.whole(exit_, tmp_path / f"whole-{exit_}.onnx").path) for exit_ in range(DEPTH + 1)]
    for feeds in (padded_batch(1, 5), padded_batch(8, 12), padded_batch(32, 16)):
        for whole, on_the_way in zip(wholes, run_each(path, feeds), strict=True):
            assert np.array_equal(whole.run(feeds)[LOGITS], on_the_way.logits)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_rows_may_change_company_between_stages(
    precisions: dict[str, AllExits], precision: str, tmp_path: Path
) -> None:
    """Cut, padded and joined again, the same rows are answered bit for bit as by the whole graph, others nearly so."""
    exits = precisions[precision]
    stages = exits.stages(DEPTH)
    for number, name in enumerate(stages):
        exits.stage(number, tmp_path / f"{name}.onnx")
    first, *rest = [open_session(tmp_path / f"{name}.onnx") for name in stages]
    whole = open_session(exits.whole(DEPTH, tmp_path / "whole.onnx").path)
    feeds = padded_batch(8, 12)
    sizes = feeds[ATTENTION_MASK].sum(axis=1).tolist()
    expected = whole.run(feeds)[LOGITS]
    state = run_stages([first], feeds).state
    assert state is not None
    states = cut_states(first, state, sizes)
    last = run_stages(rest, collate_states(rest[0], states))
    assert np.array_equal(expected, last.logits)
    assert last.state is None
    apart = [run_stages(rest, collate_states(rest[0], states[row : row + 3])).logits for row in range(0, 8, 3)]
    np.testing.assert_allclose(np.concatenate(apart), expected, atol=1e-4)


def test_exported_exits_are_the_network_s(
    precisions: dict[str, AllExits], network: MultiExitEncoder, tmp_path: Path
) -> None:
    """Each fp32 graph answers what torch answers at that exit, and counts only the weights up to it."""
    feeds = padded_batch(4, 9)
    counts = []
    for exit_number in range(DEPTH + 1):
        made = precisions["fp32"].whole(exit_number, tmp_path / "model.onnx")
        expected = reference_logits(network, exit_number)(feeds)
        np.testing.assert_allclose(open_session(made.path).run(feeds)[LOGITS], expected, atol=1e-5)
        counts.append(made.parameters)
    assert sum(weight.numel() for weight in network.parameters()) - DEPTH * (2 * WIDTH + 2) == counts[-1]
    assert sorted(set(counts)) == counts


def test_padding_does_not_change_an_answer(network: MultiExitEncoder) -> None:
    """A row's logits are the same with and without padding behind it."""
    ids = torch.tensor([[5, 6, 7, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0, 0, 0]])
    with torch.inference_mode():
        padded, bare = network(ids, mask)[-1], network(ids[:, :3], mask[:, :3])[-1]
    torch.testing.assert_close(bare, padded, atol=1e-5, rtol=0)


def test_a_checkpoint_of_another_shape_is_refused() -> None:
    """Weights that lack a layer are reported by the name of what is missing."""
    embeddings = {
        "embeddings.word_embeddings.weight": torch.zeros(10, WIDTH),
        "embeddings.position_embeddings.weight": torch.zeros(16, WIDTH),
        "embeddings.token_type_embeddings.weight": torch.zeros(2, WIDTH),
        "embeddings.LayerNorm.weight": torch.zeros(WIDTH),
        "embeddings.LayerNorm.bias": torch.zeros(WIDTH),
    }
    with pytest.raises(KeyError, match=r"encoder\.layer\.0\.attention\.self\.query\.weight"):
        from_pretrained(embeddings, 1, 16)


def test_a_network_can_be_trained_for_one_exit_alone(network: MultiExitEncoder) -> None:
    """Only the chosen exit's classifier and the layers learn; without the choice all classifiers do."""
    rows = [np.array([1, 2, token, 3]) for token in range(4, 20)]
    labels = np.arange(16) % 2
    for exits, learnt in (((2,), [False, False, True]), (None, [True, True, True])):
        trained = copy.deepcopy(network)
        fine_tune(trained, Padded(), rows, labels, Schedule(1, 1e-3), seed=0, advance=lambda done: None, exits=exits)
        after = trained.state_dict()
        changed = {name for name, values in network.state_dict().items() if not torch.equal(values, after[name])}
        assert learnt == [f"exits.{number}.weight" in changed for number in range(DEPTH + 1)]
        assert {"words", "layers.1.widen"} & {name.removesuffix(".weight") for name in changed} == {"layers.1.widen"}


@given(st.integers(1, 3000), st.integers(0, 2**31))
def test_an_epoch_has_every_row_once(rows: int, seed: int) -> None:
    """Whatever the lengths, the batches of an epoch are a permutation of the rows."""
    sizes = np.random.default_rng(seed).integers(1, 65, rows).tolist()
    order = torch.cat(list(batches(sizes, torch.Generator().manual_seed(seed))))
    assert list(range(rows)) == order.sort().values.tolist()


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Exits:
    """A context in which a random encoder is the pretrained one; depth and exits that it is to be trained for."""
    source = MultiExitEncoder(2, vocabulary=5, max_tokens=MAX_TOKENS)
    weights = {
        "embeddings.word_embeddings.weight": source.words.weight.data,
        "embeddings.position_embeddings.weight": source.positions.data,
        "embeddings.token_type_embeddings.weight": torch.zeros(2, WIDTH),
        "embeddings.LayerNorm.weight": source.embedding_norm.weight.data,
        "embeddings.LayerNorm.bias": source.embedding_norm.bias.data,
    }
    names = {"projection": "attention.output.dense", "attention_norm": "attention.output.LayerNorm"}
    names |= {"widen": "intermediate.dense", "narrow": "output.dense", "output_norm": "output.LayerNorm"}
    for name, values in source.layers.state_dict().items():
        layer, part, kind = name.split(".")
        if part == "query_key_value":
            for which, piece in zip(("query", "key", "value"), values.chunk(3), strict=True):
                weights[f"encoder.layer.{layer}.attention.self.{which}.{kind}"] = piece
        else:
            weights[f"encoder.layer.{layer}.{names[part]}.{kind}"] = values
    asked: list[tuple[int, object]] = []

    def asked_for(network: MultiExitEncoder, *given: object, exits: object, **settings: object) -> None:
        asked.append((network.depth, exits))

    monkeypatch.setattr(data, "pretrained_encoder", lambda cache: (weights, b""))
    monkeypatch.setattr(train, "fine_tune", asked_for)
    tokenizer = Tokenizer(WordPiece({"[UNK]": 0, "good": 1}, unk_token="[UNK]"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    spec = ExitsOfMiniLM(2, Schedule(1, 1e-3), 1, alone=(1, 2)).family("exits", "", 0.1, {})
    silent: Callable[[object], None] = lambda given: None  # noqa: E731 - of both
    return BuildContext(spec, tmp_path, tmp_path, tmp_path / "cache", silent, silent), asked


def one_text() -> Dataset:
    rows = LabelledRows({data.INPUT: np.array([b"good"], dtype=object)}, np.array([1]))
    return Dataset(rows, rows, rows)


def test_counterparts_are_as_deep_as_their_exit_and_trained_for_it(encoder: Exits, tmp_path: Path) -> None:
    """Each names the exit that it is compared with, is trained for its last exit alone, and says so in its lineage."""
    context, asked = encoder
    assert context.spec.counterparts is not None
    candidates = list(context.spec.counterparts(context, one_text()))
    assert [(1, (1,)), (2, (2,))] == asked
    assert [("alone-L1-fp32", "L1-fp32"), ("alone-L2-fp32", "L2-fp32")] == [
        (candidate.name, candidate.counterpart) for candidate in candidates
    ]
    made = candidates[0].make(tmp_path / "alone.onnx")
    assert ("first 1 layers", "fine-tune of the last exit alone", "cut at exit 1") == made.lineage[1:]
    assert 1.0 == made.facts["labelled_rows"]
    assert "training_s" in made.facts
    assert candidates[0].reference is not None
    feeds = padded_batch(3, 4) | {INPUT_IDS: np.ones((3, 4), np.int64)}
    given = open_session(made.path).run(feeds)[LOGITS]
    np.testing.assert_allclose(given, candidates[0].reference(feeds), atol=1e-5)


def test_one_seed_gives_one_network(encoder: Exits, tmp_path: Path) -> None:
    """Whatever drew random numbers before, the classifiers start from the same ones."""
    context, _ = encoder
    states = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        apart = replace(context, cache=tmp_path / f"cache-{noise}")
        [*_, last] = context.spec.build(apart, one_text())
        assert last.reference is not None
        states.append(last.reference({INPUT_IDS: np.ones((1, 3), np.int64), ATTENTION_MASK: np.ones((1, 3), np.int64)}))
    assert np.array_equal(states[0], states[1])
