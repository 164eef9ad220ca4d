"""The HTTP interface as an OpenAPI 3.1 document: `GET /openapi.json`, and docs/openapi.json without a replica's models.

Paths, parameters and status codes are written down here; what headers accept is in `service.oip.headers`, what errors
there are in `service.oip.errors`. That servers keep to it is tested with Schemathesis, which makes requests of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from service import __version__
from service.oip.errors import DroppedReason
from service.oip.signature import ANY_LENGTH, TensorSpec
from service.openapi.schemas import NAME, Schema, reference, schemas

MOST_MODELS = 64
"""Of more models the document names none."""

_JSON = "application/json"
_ERRORS = {
    400: "Malformed: the message names the field or header, what was expected and what came.",
    401: "No valid credentials, where keys are configured.",
    403: "These credentials, or these settings, do not allow it.",
    404: "No such model, version or path.",
    405: "The path is there, but takes another method (`Allow`).",
    408: "The body did not come in time.",
    413: "Larger than this replica takes.",
    415: "A `Content-Encoding` other than gzip and deflate.",
    429: "Over a quota or a fair share, or no variant can meet the SLO now.",
    500: "The model failed on this request.",
    503: "Not ready, draining, nothing loaded, or the queue is full.",
    504: "The timeout passed before the answer was ready.",
}
_ALWAYS = (400, 401, 403, 404, 405, 503)
_INFER = (*_ALWAYS, 408, 413, 415, 429, 500, 504)
_POSITIVE: Schema = {"type": "number", "exclusiveMinimum": 0}


class Served(NamedTuple):
    """What a model takes, and the names of its variants."""

    inputs: Sequence[TensorSpec]
    versions: Sequence[str]


def openapi_document(models: Mapping[str, Served] | None = None) -> dict[str, Any]:
    """The document, ready for JSON; with the `models` of a replica it has their names, and an example of each."""
    served = models or {}
    versions = {version for model in served.values() for version in model.versions}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pareto Gateway",
            "version": __version__,
            "description": "Open Inference Protocol v2. A model is a family; its versions are the variants, of which "
            "the gateway picks one for each request unless the path names it.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        # An empty one: nothing is needed where no keys are configured.
        "security": [{}, {"bearer": []}, {"key": []}],
        "paths": {**_server_paths(), **_model_paths(served), **_repository_paths(), **_admin_paths()},
        "components": {
            "schemas": schemas(),
            "parameters": {
                "model": _path("model", _one_of(served)),
                "version": _path("version", _one_of(versions)),
                **_headers(),
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "responses": {str(status): _refusal(said) for status, said in _ERRORS.items()},
        },
    }


def _server_paths() -> dict[str, Any]:
    live = _answered("Live", "The process runs.")
    ready = _answered("Ready", "Requests are taken.")
    return {
        "/livez": {"get": _operation("Liveness, for probes", live)},
        "/readyz": {"get": _operation("Readiness, for probes", ready, errors=(503,))},
        "/v2/health/live": {"get": _operation("Liveness", live)},
        "/v2/health/ready": {"get": _operation("Readiness", ready, errors=(503,))},
        "/v2": {"get": _operation("The server and its extensions", _answered("ServerMetadata"))},
        "/v2/models/stats": {"get": _operation("Statistics of all models", _answered("Statistics"), errors=_ALWAYS)},
        "/metrics": {
            "get": _operation(
                "Metrics for Prometheus",
                {"description": "Text exposition format.", "content": {"text/plain": {"schema": {"type": "string"}}}},
                errors=(401, 403),
            )
        },
    }


def _model_paths(served: Mapping[str, Served]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for path, names in (("/v2/models/{model}", ("model",)), ("/v2/models/{model}/versions/{version}", _VERSION)):
        what = "a model" if names == ("model",) else "one variant"
        pages = {
            "": (f"Inputs and outputs of {what}", "ModelMetadata"),
            "/ready": (f"Whether {what} answers", "Ready"),
            "/stats": (f"Statistics of {what}", "Statistics"),
        }
        for end, (summary, schema) in pages.items():
            result[path + end] = {
                "parameters": _parameters(*names),
                "get": _operation(summary, _answered(schema), errors=_ALWAYS),
            }
        result[path + "/infer"] = {
            "parameters": _parameters(*names, *_headers()),
            "post": _operation(
                "Answer, with the variant that suits the request best" if what == "a model" else "Answer with this one",
                _inferred(),
                body=_sent("InferRequest", examples={name: _example(model.inputs) for name, model in served.items()}),
                errors=_INFER,
            ),
        }
    result["/v2/models/{model}/feedback"] = {
        "parameters": _parameters("model"),
        "post": _operation(
            "Tell what was right", _answered("Verdict"), body=_sent("Feedback"), errors=(*_ALWAYS, 408, 413)
        ),
    }
    return result


_VERSION = ("model", "version")


def _repository_paths() -> dict[str, Any]:
    changes = {
        "load": ("Load a model, or begin the trial of another revision", "LoadRequest"),
        "unload": ("Serve a model no longer; what waits is answered", "LoadRequest"),
    }
    errors = (*_ALWAYS, 408, 413, 500)
    return {
        "/v2/repository/index": {
            "post": _operation(
                "All variants of all models, and their state",
                _answered("Index"),
                body=_sent("IndexRequest", required=False),
                errors=(400, 401, 403, 405, 408, 413),
            )
        },
        **{
            f"/v2/repository/models/{{model}}/{end}": {
                "parameters": _parameters("model"),
                "post": _operation(
                    f"{summary}; closed unless `admin` is set",
                    _answered("Nothing"),
                    body=_sent(schema, required=False),
                    errors=errors,
                ),
            }
            for end, (summary, schema) in changes.items()
        },
    }


def _admin_paths() -> dict[str, Any]:
    decided = {"promote": "Serve the revision on trial", "rollback": "End the trial"}
    return {
        "/admin/reload": {
            "post": _operation("Read the settings again", _answered("Reloaded"), errors=(*_ALWAYS, 500)),
        },
        "/admin/canaries": {"get": _operation("The last trial of each model", _answered("Trials"), errors=_ALWAYS)},
        **{
            f"/admin/canaries/{{model}}/{end}": {
                "parameters": _parameters("model"),
                "post": _operation(summary, _answered("Trial"), errors=(*_ALWAYS, 500)),
            }
            for end, summary in decided.items()
        },
    }


def _operation(
    summary: str, answer: dict[str, Any], *, body: dict[str, Any] | None = None, errors: Sequence[int] = ()
) -> dict[str, Any]:
    refusals = {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(set(errors))}
    return {
        "summary": summary,
        **({} if body is None else {"requestBody": body}),
        "responses": {"200": answer, **refusals},
    }


def _answered(schema: str, description: str = "As asked.") -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": reference(schema)}}}


def _sent(schema: str, *, required: bool = True, examples: Mapping[str, Any] | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": reference(schema)}
    if examples and len(examples) <= MOST_MODELS:
        content["examples"] = {name: {"value": example} for name, example in examples.items()}
    return {"required": required, "content": {_JSON: content}}


def _inferred() -> dict[str, Any]:
    text: Schema = {"type": "string"}
    headers = {
        "x-request-id": ("The request's, or one that was made.", text),
        "x-variant": ("The variant that answered.", text),
        "x-route-reason": ("Why: docs/reasons.md.", text),
        "x-route-path": ("Who answered the first row, one after the other.", text),
        "x-device": ("Where there are several devices, the one that answered.", text),
        "x-slo-met": ("Whether the answer was in time.", {"type": "string", "enum": ["true", "false"]}),
        "server-timing": ("Milliseconds waiting, computing and in all.", text),
    }
    return {
        **_answered("InferAnswer", "The answer, and what was decided. Raw tensors follow the JSON where asked for."),
        "headers": {name: {"description": said, "schema": schema} for name, (said, schema) in headers.items()},
    }


def _refusal(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "headers": {
            "x-request-dropped-reason": {
                "description": "Where a sound request was dropped.",
                "schema": {"type": "string", "enum": [reason.value for reason in DroppedReason]},
            },
            "retry-after": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}},
        },
        "content": {_JSON: {"schema": reference("Error")}},
    }


def _parameters(*names: str) -> list[dict[str, str]]:
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def _path(name: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _one_of(names: Collection[str]) -> Schema:
    """Any name, where there are none or too many."""
    return {**NAME, "enum": sorted(names)} if 0 < len(names) <= MOST_MODELS else NAME


def _headers() -> dict[str, Any]:
    """What an inference request may say in headers."""
    fraction: Schema = {**_POSITIVE, "maximum": 1}
    words: dict[str, tuple[str, Schema]] = {
        "x-slo-latency-ms": ("By when the answer is wanted, milliseconds from receipt.", _POSITIVE),
        "x-slo-min-accuracy": ("The least measured accuracy of a variant that may answer.", fraction),
        "x-slo-when-late": ("What to do when the SLO cannot be met.", {"type": "string", "enum": ["shed", "serve"]}),
        "x-request-timeout-seconds": ("When the answer is worthless.", _POSITIVE),
    }
    return {
        name: {"name": name, "in": "header", "required": False, "description": said, "schema": schema}
        for name, (said, schema) in words.items()
    }


def _example(inputs: Sequence[TensorSpec]) -> dict[str, Any]:
    """A request that is answered: one row of zeros, or of a short text."""
    tensors = []
    for spec in inputs:
        shape = [1 if length == ANY_LENGTH else length for length in spec.shape]
        size = 1
        for length in shape:
            size *= length
        data: list[Any] = ["a short text"] * size if spec.datatype == "BYTES" else [0] * size
        tensors.append({"name": spec.name, "shape": shape, "datatype": spec.datatype, "data": data})
    return {"inputs": tensors}
