"""The manifest accepts what a build writes and refuses what serving could not live with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from variants.manifest import FamilyManifest, TensorPreparation, TextPreparation
from variants.measurements import BATCH_TOLERANCE

Fields = dict[str, Any]


def test_a_manifest_survives_its_file(tiny_fields: Fields, words_fields: Fields) -> None:
    """Writing a manifest as JSON and reading it gives the same manifest, whichever the preparation."""
    for fields, preparation in ((tiny_fields, TensorPreparation), (words_fields, TextPreparation)):
        manifest = FamilyManifest.model_validate({**fields, "batch_tolerance": 0.005})
        assert 0.005 == manifest.batch_tolerance
        assert manifest == FamilyManifest.model_validate_json(manifest.model_dump_json())
        assert preparation is type(manifest.preparation)


def test_a_manifest_of_an_older_build_is_read(tiny_fields: Fields) -> None:
    """What older builds did not measure is None, what they did not say has its default; nothing else is asked for."""
    variant = FamilyManifest.model_validate(tiny_fields).variant("small")
    assert BATCH_TOLERANCE == FamilyManifest.model_validate(tiny_fields).batch_tolerance
    assert [None] * 4 == [variant.macs, variant.training, variant.scores_file, variant.counterpart]
    assert None is variant.quality.f1_error


def test_a_variant_needs_its_own_its_stages_and_the_shared_files(tiny_fields: Fields, words_fields: Fields) -> None:
    """The files that a variant falls with are its own, those of its stages and the tokenizer."""
    tiny, words = FamilyManifest.model_validate(tiny_fields), FamilyManifest.model_validate(words_fields)
    expected = {"small/model.onnx", "small/calibration.npz", "stages/trunk.onnx"}
    assert expected == set(tiny.files_of(tiny.variant("small")))
    assert {"sum/model.onnx", "sum/calibration.npz", "tokenizer.json"} == set(words.files_of(words.variant("sum")))


def test_an_unknown_variant_is_a_key_error(tiny_fields: Fields) -> None:
    """Asking for a variant that is not there raises `KeyError` with its name."""
    with pytest.raises(KeyError, match="huge"):
        FamilyManifest.model_validate(tiny_fields).variant("huge")


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../other/model.onnx", "a/../../b", "a//b", ".hidden/x", "a\\b", "", "family.json", "profiles/x"],
)
def test_no_path_leads_out_of_the_folder(tiny_fields: Fields, path: str) -> None:
    """Absolute, climbing, hidden, foreign and reserved paths are refused."""
    tiny_fields["variants"][0]["model_file"] = path
    with pytest.raises(ValidationError, match=r"variants\.0\.model_file"):
        FamilyManifest.model_validate(tiny_fields)


@pytest.mark.parametrize("name", ["", "a b", "../a", ".a", "a/b", "ä", "a" * 65, "a\n"])
def test_names_are_safe_everywhere(tiny_fields: Fields, name: str) -> None:
    """A name that could not stand in a path, a URL or a label is refused."""
    with pytest.raises(ValidationError, match="name"):
        FamilyManifest.model_validate({**tiny_fields, "name": name})


def _set(**changes: Any) -> Callable[[Fields], object]:
    return lambda fields: fields.update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(surprise=1), "surprise"),
        (_set(schema_version=2), "schema_version"),
        (_set(revision="ACTIVE"), "cannot be called ACTIVE"),
        (_set(labels=["a", "a"]), "two are called 'a'"),
        (_set(sizes=[4, 4]), "do not ascend"),
        (_set(sizes=[4]), "the one size class"),
        (_set(default_slo_s=0.0), "default_slo_s"),
        (_set(default_slo_s=float("nan")), "default_slo_s"),
        (_set(batch_tolerance=0.0), "batch_tolerance"),
        (_set(batch_tolerance=0.5), "batch_tolerance"),
        (_set(stages=[]), "no stage 'trunk'"),
        (_set(inputs=[{"name": "x", "datatype": "BYTES", "shape": [-1]}]), "a tensor needs numbers"),
        (_set(inputs=[{"name": "x", "datatype": "FP32", "shape": [-1, -1]}]), "a tensor needs numbers"),
        (
            _set(outputs=[{"name": "mood", "datatype": "BYTES", "shape": [-1]}]),
            r"mood BYTES \[-1\] is not one of label",
        ),
        (_set(outputs=[{"name": "label", "datatype": "INT64", "shape": [-1]}]), r"label INT64 \[-1\] is not one of"),
        (
            _set(outputs=[{"name": "confidence", "datatype": "FP32", "shape": [-1, 1]}]),
            r"confidence FP32 \[-1, 1\] is not",
        ),
        (
            _set(outputs=[{"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}]),
            r"not one of .* FP32 \[-1, 3\]",
        ),
        (_set(outputs=[]), "outputs"),
        (_set(files=[{"path": "x", "sha256": "0" * 64, "size_bytes": 1}]), "is not among the revision's files"),
        (_set(preparation={"kind": "tensor", "scale": 0.0}), "scale"),
        (_set(preparation={"kind": "wordpiece", "tokenizer_file": "t", "max_tokens": 8}), "text needs BYTES"),
        (lambda fields: fields["variants"].append(fields["variants"][0]), "two are called 'small'"),
        (lambda fields: fields["variants"][0]["quality"].update(value=1.5), r"quality\.value"),
        (lambda fields: fields["variants"][0].update(temperature=0.0), "temperature"),
        (lambda fields: fields["variants"][0].update(counterpart="solo"), "no variant 'solo' to be the counterpart"),
        (lambda fields: fields["variants"][0].update(training={"seconds": -1}), r"training\.seconds"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    tiny_fields: Fields, change: Callable[[Fields], object], message: str
) -> None:
    """A manifest that contradicts itself or leaves its ranges is refused with the place of the fault."""
    change(tiny_fields)
    with pytest.raises(ValidationError, match=message):
        FamilyManifest.model_validate(tiny_fields)


def test_the_longest_row_fits_the_last_size_class(words_fields: Fields) -> None:
    """A text family whose rows may be longer than its last size class is refused."""
    with pytest.raises(ValidationError, match="do not fit 6"):
        FamilyManifest.model_validate({**words_fields, "sizes": [3, 6]})
