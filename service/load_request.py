"""The body of `POST /v2/repository/models/{m}/load`: Triton's, with parameters that begin the trial of a revision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import orjson

from router.canary import Trial
from service.oip.errors import ProtocolError, malformed, shown

PREFIX = "canary_"
KINDS: dict[str, tuple[str, tuple[type, ...]]] = {
    "float": ("a number", (int, float)),
    "int": ("a whole number", (int,)),
    "bool": ("true or false", (bool,)),
}
RULES = {PREFIX + field.name: KINDS[str(field.type)] for field in fields(Trial)}
"""By parameter, what it has to be: every rule of `router.canary.Trial`."""


class LoadRequest(NamedTuple):
    """What is to be loaded: the active revision unless one is named; with a `trial`, beside the one that serves."""

    revision: str | None = None
    trial: Trial | None = None


def read_load_request(body: bytes) -> LoadRequest:
    """Read a body; an empty one asks for the active revision.

    Raises `ProtocolError` 400 for a body that is no object, for Triton's parameters that are not supported, for a
    revision that is no text, and for a trial without a revision or with rules that cannot be.
    """
    if not body:
        return LoadRequest()
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise malformed("body", "JSON or nothing", str(error)[:200]) from None
    parameters = document.get("parameters", {}) if type(document) is dict else document
    if type(parameters) is not dict:
        raise malformed("parameters", "an object", shown(parameters))
    return load_request(parameters)


def load_request(parameters: Mapping[str, Any]) -> LoadRequest:
    """Read its parameters. Raises `ProtocolError` 400 as `read_load_request`."""
    unknown = sorted(parameters.keys() - RULES.keys() - {"revision", "unload_dependents"})
    if unknown:
        raise malformed("parameters", f"`revision` alone, or with {', '.join(RULES)}", shown(unknown[0]))
    revision = parameters.get("revision")
    if revision is not None and type(revision) is not str:
        raise malformed("parameters.revision", "a name", shown(revision))
    return LoadRequest(revision, _trial(revision, {name: parameters[name] for name in RULES if name in parameters}))


def _trial(revision: str | None, given: dict[str, Any]) -> Trial | None:
    if not given:
        return None
    if revision is None:
        raise malformed("parameters.revision", "the name of the revision to try", "none")
    for name, value in given.items():
        wanted, kinds = RULES[name]
        if type(value) not in kinds:
            raise malformed(f"parameters.{name}", wanted, shown(value))
    try:
        return Trial(**{name.removeprefix(PREFIX): value for name, value in given.items()})
    except ValueError as error:
        raise ProtocolError(400, f"parameters.{PREFIX}{error}") from None
