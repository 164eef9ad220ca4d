"""The bodies of the HTTP interface as JSON Schema (OpenAPI 3.1): what is sent, what is answered."""

from __future__ import annotations

from typing import Any

from service.load_request import RULES
from service.oip.datatypes import DATATYPES
from service.oip.request import Limits

Schema = dict[str, Any]

_TYPES = {"a number": "number", "a whole number": "integer", "true or false": "boolean"}


def reference(name: str) -> Schema:
    """A reference to one of the `schemas`."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: tuple[str, ...], /, **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties}


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
_SCALAR: Schema = {"type": ["string", "number", "boolean"]}
_PARAMETERS: Schema = {"type": "object", "additionalProperties": _SCALAR}
_DURATION = _object(("count", "ns"), count=COUNT, ns=COUNT)
_TENSOR: dict[str, Schema] = {
    "name": NAME,
    "datatype": {"type": "string", "enum": sorted(DATATYPES)},
    "shape": _list({"type": "integer"}, minItems=1),
}


def _terms() -> Schema:
    """What a request may say of itself in its parameters."""
    return {
        **_PARAMETERS,
        "properties": {
            "slo_ms": {"type": "number", "exclusiveMinimum": 0, "description": "By when the answer is wanted."},
            "min_accuracy": {
                "type": "number",
                "exclusiveMinimum": 0,
                "maximum": 1,
                "description": "The least measured accuracy of a variant that may answer.",
            },
            "when_late": {
                "type": "string",
                "enum": ["shed", "serve"],
                "description": "What to do when the SLO cannot be met: refuse with 429, or answer late.",
            },
            "timeout": {
                "type": "integer",
                "minimum": 1,
                "description": "Microseconds after which the answer is worthless (504).",
            },
            "priority": {"type": "integer", "minimum": 0, "description": "1 first; 0 is the default level."},
            "binary_data_output": {"type": "boolean", "description": "Outputs as raw bytes behind the JSON."},
        },
    }


def schemas() -> dict[str, Schema]:
    """All of them by name."""
    data: Schema = {
        "type": "array",
        "description": "Row-major, flat or nested.",
        "items": {"type": ["number", "string", "boolean", "array"]},
    }
    index_entry = _object(
        ("name", "version", "state", "reason"),
        name=NAME,
        version=TEXT,
        state={"type": "string", "enum": ["READY", "LOADING", "UNAVAILABLE"]},
        reason=TEXT,
    )
    stage = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
    statistics = _object(
        ("name", "version", "inference_count", "execution_count", "inference_stats", "batch_stats"),
        name=NAME,
        # Requests that no variant answered are counted under none.
        version={**TEXT, "description": "Empty for requests that ended before a variant was chosen."},
        last_inference=COUNT,
        inference_count=COUNT,
        execution_count=COUNT,
        inference_stats=_object(stage, **dict.fromkeys(stage, _DURATION)),
        batch_stats=_list(_object(("batch_size",), batch_size=COUNT)),
    )
    rules = {name: {"type": _TYPES[said]} for name, (said, _) in RULES.items()}
    label: Schema = {"type": ["string", "integer", "null"]}
    return {
        "Error": _object(("error",), error={**TEXT, "description": "One line: what was wrong, and what was expected."}),
        "Live": _object(("live",), live={"const": True}),
        "Ready": _object(("ready",), ready={"const": True}, name=NAME, version=NAME),
        "ServerMetadata": _object(("name", "version", "extensions"), name=NAME, version=NAME, extensions=_list(NAME)),
        "TensorMetadata": _object(tuple(_TENSOR), **_TENSOR),
        "ModelMetadata": _object(
            ("name", "versions", "platform", "inputs", "outputs"),
            name=NAME,
            versions=_list(NAME),
            platform=NAME,
            inputs=_list(reference("TensorMetadata"), minItems=1),
            outputs=_list(reference("TensorMetadata"), minItems=1),
        ),
        "InferInput": _object(tuple(_TENSOR), **_TENSOR, parameters=_PARAMETERS, data=data),
        "InferRequest": _object(
            ("inputs",),
            id={"type": ["string", "null"], "maxLength": Limits().max_id_characters},
            parameters=_terms(),
            inputs=_list(reference("InferInput"), minItems=1),
            outputs=_list(_object(("name",), name=NAME, parameters=_PARAMETERS)),
        ),
        "InferOutput": _object(tuple(_TENSOR), **_TENSOR, parameters=_PARAMETERS, data=data),
        "InferAnswer": _object(
            ("model_name", "model_version", "outputs"),
            model_name=NAME,
            model_version={**NAME, "description": "The variant that answered, `mixed` where rows differ."},
            id=TEXT,
            parameters={"type": "object", "description": "What was decided, and why."},
            outputs=_list(reference("InferOutput")),
        ),
        "Statistics": _object(("model_stats",), model_stats=_list(statistics)),
        "IndexRequest": _object((), ready={"type": "boolean", "description": "Only what is ready."}),
        "Index": _list(index_entry),
        "LoadRequest": _object(
            (),
            parameters=_object((), revision={**NAME, "description": "Another revision than the active one."}, **rules),
        ),
        "Nothing": {"type": "object", "maxProperties": 0},
        "Feedback": _object(
            ("answers",),
            answers=_list(
                _object(
                    ("id", "labels"),
                    id={**TEXT, "description": "The request's `x-request-id`, or the `id` in its body."},
                    labels=_list(label, description="What was right, row by row; null where it is not known."),
                )
            ),
        ),
        "Verdict": _object(
            ("model_name", "answers", "rows", "correct", "unknown", "unknown_ids"),
            model_name=NAME,
            answers=COUNT,
            rows=COUNT,
            correct=COUNT,
            unknown={**COUNT, "description": "Ids that mean no answer, or one that is judged already."},
            unknown_ids=_list(TEXT),
        ),
        "Trial": _object(
            ("model", "revision", "serving", "state", "why"),
            model=NAME,
            revision=NAME,
            serving=NAME,
            state=NAME,
            why=TEXT,
            share={"type": "number"},
            shadow={"type": "boolean"},
            seconds={"type": "number"},
            **dict.fromkeys(
                ("answers", "answers_wanted", "agreed", "disagreed", "skipped", "pairs", "fallbacks"), COUNT
            ),
        ),
        "Trials": _list(reference("Trial")),
        "Reloaded": _object(("applied", "needs_restart"), applied=_list(NAME), needs_restart=_list(NAME)),
    }
