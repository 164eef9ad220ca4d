"""One odd family never breaks the replica: what is sound serves, the rest is refused in one line."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from service import loading
from service.eligibility import check_variant
from service.loaded_family import LoadedFamily
from service.loading import load_family
from service.oip.errors import ProtocolError
from service.piecewise import PiecewiseFamily
from service.scoped_settings import Stages
from tests.service.families import chain_models, sign_model, write_chain, write_family
from variants.atomic import sha256_of
from variants.repository import Repository, RepositoryError, RevisionFolder
from variants.session import SessionOptions


def load(repository: Repository) -> LoadedFamily:
    return load_family(repository, "sign", SessionOptions())


def publish(repository: Repository, **models: onnx.ModelProto) -> RevisionFolder:
    write_family(repository, "sign", {name: (model, 0.8) for name, model in models.items()})
    return repository.open("sign")


def strange_model(kind: int, width: int) -> onnx.ModelProto:
    """A model of the right inputs whose logits have another type or width."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["cast"], to=kind),
            helper.make_node("Concat", ["cast"] * width, ["logits"], axis=1),
        ],
        "strange",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("logits", kind, ["rows", 4 * width])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models")


@pytest.mark.parametrize("model", [strange_model(TensorProto.INT64, 1), strange_model(TensorProto.FLOAT, 2)])
def test_a_model_with_strange_logits_is_refused_alone(repository: Repository, model: onnx.ModelProto) -> None:
    """The other variant serves; the fault names the file without the folders of this machine."""
    publish(repository, sound=sign_model(), strange=model)
    loaded = load(repository)
    assert ["sound"] == list(loaded.paths)
    assert loaded.refused["strange"].startswith("strange/model.onnx: expected finite logits (1, 2)")
    with pytest.raises(
        ProtocolError, match=r"is refused: strange/model.onnx: expected finite logits .*; served are sound"
    ):
        check_variant(loaded, "strange")


def test_a_file_that_is_no_model_is_refused_alone(repository: Repository, caplog: pytest.LogCaptureFixture) -> None:
    """The checksum is right and the content is rubbish: callers read the relative name, the log has the full one."""
    folder = publish(repository, sound=sign_model(), rubbish=sign_model())
    path = folder.file("rubbish/model.onnx")
    path.write_bytes(b"rubbish")
    _sign_off(folder, "rubbish/model.onnx")
    with caplog.at_level(logging.ERROR, "pareto.loading"):
        loaded = load(repository)
    assert ["sound"] == list(loaded.paths)
    assert loaded.refused["rubbish"].startswith("rubbish/model.onnx: cannot be opened as a model")
    assert str(repository.root) not in loaded.refused["rubbish"]
    assert str(path) in caplog.text


def test_broken_samples_matter_only_without_a_profile(repository: Repository, caplog: pytest.LogCaptureFixture) -> None:
    """Without a stored profile there is nothing to plan with; with one the family serves and a warning is logged."""
    folder = publish(repository, sound=sign_model())
    samples = folder.file("samples.npz").read_bytes()
    folder.file("samples.npz").write_bytes(b"broken")
    with pytest.raises(RepositoryError, match=r"family sign: has no latency profile .*samples\.npz: cannot be read"):
        load(repository)
    folder.file("samples.npz").write_bytes(samples)
    load(repository)
    folder.file("samples.npz").write_bytes(b"broken")
    with caplog.at_level(logging.WARNING, "pareto.loading"):
        assert ["sound"] == list(load(repository).paths)
    assert "family sign: is not warmed up" in caplog.text


@pytest.mark.parametrize("budget", [False, True])
def test_a_repository_that_cannot_be_written_serves(repository: Repository, budget: bool) -> None:
    """Where a profile cannot be stored, what was measured counts all the same, with a memory budget and without."""
    # In the way of the folder: root writes wherever permissions forbid it.
    (publish(repository, a=sign_model()).path / "profiles").write_text("")
    if budget:
        piece = PiecewiseFamily(repository, "sign", SessionOptions(), None, stages="off", cascades=False)
        loaded, (path,) = piece.loaded, piece.open("a").paths.values()
    else:
        loaded = load(repository)
        path = loaded.paths["a"]
    assert (["a"], 1) == (list(loaded.profile.variants), len(path))


def test_broken_samples_refuse_what_was_never_profiled(repository: Repository) -> None:
    """A variant that the stored profile lacks is refused by name, the profiled one serves."""
    folder = publish(repository, old=sign_model(), new=sign_model())
    load_family(repository, "sign", SessionOptions(), wanted=["old"])
    folder.file("samples.npz").write_bytes(b"broken")
    loaded = load(repository)
    assert (["old"], ["new"]) == (list(loaded.paths), list(loaded.refused))
    assert loaded.refused["new"].startswith("has no latency profile of this machine, and samples.npz: cannot be read")


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": np.zeros((3, 5), np.float32), "label": np.zeros(3, np.int64)},
        {"x": np.zeros((0, 4), np.float32), "label": np.zeros(0, np.int64)},
        {"x": np.zeros((3, 4), np.float32), "label": np.array(["a", "b", "c"])},
        {"x": np.float32(1.0), "label": np.int64(1)},
    ],
)
def test_samples_that_do_not_fit_are_a_repository_error(
    repository: Repository, arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]
) -> None:
    """Wrong shapes, no rows, labels that are no numbers and scalars: one line that names the family."""
    folder = publish(repository, sound=sign_model())
    np.savez(folder.file("samples.npz"), **arrays)  # type: ignore[arg-type]  # numpy's keywords are arrays
    with pytest.raises(RepositoryError, match=r"^family sign: [^\n]+$"):
        load(repository)


def test_samples_are_read_once_for_all_variants(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three variants are warmed up on rows that were read and prepared once."""
    publish(repository, a=sign_model(), b=sign_model(), c=sign_model())
    load(repository)
    reads: list[Path] = []
    samples = RevisionFolder.samples

    def counted(folder: RevisionFolder) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        reads.append(folder.path)
        return samples(folder)

    monkeypatch.setattr(RevisionFolder, "samples", counted)
    assert {"a", "b", "c"} == set(load(repository).paths)
    assert 1 == len(reads)


@pytest.mark.parametrize("error", [ValueError("a\nb"), RuntimeError("a\nb"), KeyError("a b"), OSError("a b")])
def test_whatever_is_raised_becomes_a_repository_error(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """One line that names the family, whatever the readers of its files raise."""

    def fail(*given: object, **named: object) -> None:
        raise error

    publish(repository, sound=sign_model())
    monkeypatch.setattr(loading, "to_router_family", fail)
    with pytest.raises(RepositoryError, match=r"^family sign: '?a b'?$"):
        load(repository)


def test_no_variant_left_names_every_fault(repository: Repository) -> None:
    """A family without a sound variant is refused as a whole, with the reasons."""
    folder = publish(repository, a=sign_model(), b=sign_model())
    for name in ("a", "b"):
        folder.file(f"{name}/model.onnx").unlink()
    with pytest.raises(RepositoryError, match=r"none of its variants .*a/model\.onnx: is missing; b/model\.onnx"):
        load(repository)


def test_an_output_that_is_not_answered_is_refused(repository: Repository) -> None:
    """A manifest with an output that no classifier gives is refused when it is read."""
    folder = publish(repository, sound=sign_model())
    _edit(folder, lambda fields: fields["outputs"].append({"name": "mood", "datatype": "FP32", "shape": [-1]}))
    with pytest.raises(RepositoryError, match=r"outputs: mood FP32 \[-1\] is not one of label"):
        load(repository)


def files_of(repository: Repository, stages: Stages, *, cascades: bool) -> dict[str, list[str]]:
    """The files that each variant of `chain` was opened from."""
    loaded = load_family(repository, "chain", SessionOptions(), stages=stages, cascades=cascades)
    counts = {variant.name: len(variant.stages) for variant in loaded.family.variants}
    assert counts == {name: len(path) for name, path in loaded.paths.items()}
    return {name: [session.path.name for session in path] for name, path in loaded.paths.items()}


@pytest.mark.parametrize(
    ("stages", "cascades", "staged"),
    [("on", False, True), ("auto", True, True), ("auto", False, False), ("off", True, False)],
)
def test_chains_are_opened_as_stages_where_that_is_wanted(
    repository: Repository, stages: Stages, cascades: bool, staged: bool
) -> None:
    """Stages in place of the whole graphs, never both; `auto` wants a policy that goes on from them."""
    write_chain(repository, "chain")
    expected = {"small": ["first.onnx"], "large": ["first.onnx", "second.onnx"]}
    whole = {"small": ["model.onnx"], "large": ["model.onnx"]}
    assert files_of(repository, stages, cascades=cascades) == (expected if staged else whole)


def test_a_stage_that_variants_share_is_opened_once(repository: Repository) -> None:
    """And so it is in memory once; the state of the first exit is kept for the second one."""
    write_chain(repository, "chain")
    loaded = load_family(repository, "chain", SessionOptions(), stages="on")
    assert loaded.paths["small"][0] is loaded.paths["large"][0]
    assert loaded.beginnings == {"small"}


def test_a_lone_exit_is_served_whole_unless_stages_are_asked_for(repository: Repository) -> None:
    """Nothing goes on from it, so `auto` spares it the stages' overhead."""
    write_chain(repository, "chain")
    counts = {
        stages: len(
            load_family(repository, "chain", SessionOptions(), ["large"], stages=stages, cascades=True).paths["large"]
        )
        for stages in ("auto", "on")
    }
    assert counts == {"auto": 1, "on": 2}


def test_a_stage_that_leaves_no_state_refuses_who_goes_on_from_it(repository: Repository) -> None:
    """The first exit is sound by itself; the second one is refused, and the fault names the stage."""
    write_chain(repository, "chain")
    folder = repository.open("chain")
    onnx.save(chain_models()["small"], folder.file("stages/first.onnx"))
    _sign_off(folder, "stages/first.onnx")
    loaded = load_family(repository, "chain", SessionOptions(), stages="on")
    assert list(loaded.paths) == ["small"]
    assert loaded.refused == {"large": "stages/first.onnx: leaves no state for the stage after it"}


def test_stages_without_a_profile_are_profiled(repository: Repository) -> None:
    """A profile of whole graphs is not enough to plan with stages."""
    write_chain(repository, "chain")
    load_family(repository, "chain", SessionOptions(), stages="off")
    folder = repository.open("chain")
    (path,) = (folder.path / "profiles").iterdir()
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "stages": {}}))
    reports: list[str] = []
    loaded = load_family(repository, "chain", SessionOptions(), report=reports.append, stages="on")
    assert len(reports) == 1
    assert [variant.stages for variant in loaded.family.variants] == [("first",), ("first", "second")]


def test_variants_evaluated_on_different_rows_serve_without_cascades(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no evidence to learn from, and the log says so."""
    write_chain(repository, "chain")
    folder = repository.open("chain")
    arrays = dict(np.load(folder.file("small/calibration.npz")))
    cut = {
        name: array[:-1] if name in ("label", "predicted", "confidence") else array for name, array in arrays.items()
    }
    np.savez(folder.file("small/calibration.npz"), **cut)
    _sign_off(folder, "small/calibration.npz")
    with caplog.at_level(logging.WARNING, "pareto.loading"):
        loaded = load_family(repository, "chain", SessionOptions(), cascades=True)
    assert (loaded.family.evidence, list(loaded.paths)) == (None, ["small", "large"])
    assert "family chain: no cascades" in caplog.text


def _sign_off(folder: RevisionFolder, name: str) -> None:
    """Enter the file as it is now into the manifest."""
    path = folder.file(name)

    def enter(fields: dict[str, list[dict[str, object]]]) -> None:
        (entry,) = (entry for entry in fields["files"] if entry["path"] == name)
        entry |= {"sha256": sha256_of(path), "size_bytes": path.stat().st_size}

    _edit(folder, enter)


def _edit(folder: RevisionFolder, change: Callable[[dict[str, list[dict[str, object]]]], object]) -> None:
    path = folder.path / "family.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))
