"""A load test as JSON: what was asked, where, of whom, what came of it. Reports and comparisons are made from it."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from loadtests.harness.measured import Run
from loadtests.harness.session import Ended
from loadtests.harness.subject import Subject
from loadtests.report import write_json
from loadtests.revision import commit_of
from variants.fingerprint import available_cores, machine_fingerprint

KIND, SCHEMA = "pareto-loadtest", 1
HIDDEN = "***"


class RecordError(Exception):
    """A file is no record of a load test. The message is one line."""


def record(
    *,
    profile: str,
    subject: Subject,
    about: Mapping[str, Any],
    options: Mapping[str, Any],
    runs: Sequence[Run],
    ended: Ended,
    workers: int,
    seed: int,
) -> dict[str, Any]:
    """Everything about one load test, as JSON values. `about` is what the gateway says of itself."""
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "profile": profile,
        "command": ["pareto", *without_secrets(sys.argv[1:])],
        "options": dict(options),
        "seed": seed,
        "gateway": {"url": subject.target.url, **{name: about.get(name) for name in ("name", "version", "commit")}},
        "families": [
            {
                "name": member.served.family,
                "revision": member.served.revision,
                "variants": list(member.served.variants),
                "rows": member.stock.source,
                "labelled": member.stock.labelled,
                "slo_mix_ms": str(member.mix),
                "share": member.share,
                "pinned": member.variant or None,
            }
            for member in subject.members
        ],
        "tenants": dict(zip(*subject.tenants, strict=True)) if subject.tenants is not None else None,
        "generator": {
            "machine": machine_fingerprint().description,
            "host": socket.gethostname(),
            "cores": available_cores(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "locust": version("locust"),
            "commit": commit_of(),
            "workers": workers,
            "pinned_to": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        },
        "verdict": {**ended.verdict.values(), "lines": list(ended.lines)},
        "details": dict(ended.details),
        "runs": [run.values() for run in runs],
    }


def write_record(path: Path, values: Mapping[str, Any]) -> None:
    """Write it, whole or not at all; folders on the way are made. Raises `OSError`."""
    beside = path.with_name(f".{path.name}.partial")
    write_json(beside, values)
    beside.replace(path)


def read_record(path: Path) -> dict[str, Any]:
    """What `write_record` wrote. Raises `RecordError` naming the file."""
    try:
        values = orjson.loads(path.read_bytes())
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror or error}") from None
    except orjson.JSONDecodeError as error:
        raise RecordError(f"{path}: is no JSON: {error}") from None
    if not isinstance(values, dict) or values.get("kind") != KIND:
        raise RecordError(f"{path}: is no result of `pareto loadtest`")
    if values.get("schema") != SCHEMA:
        raise RecordError(f"{path}: has schema {values.get('schema')!r}, this program reads {SCHEMA}")
    if not values.get("runs"):
        raise RecordError(f"{path}: holds no run")
    return values


def without_secrets(arguments: Sequence[str]) -> list[str]:
    """A command line without the values of headers and without the passwords of addresses."""
    cleaned: list[str] = []
    for argument in arguments:
        if cleaned and cleaned[-1] in ("--header", "-H"):
            cleaned.append(_masked(argument))
        elif argument.startswith("--header="):
            cleaned.append("--header=" + _masked(argument.removeprefix("--header=")))
        else:
            cleaned.append(without_login(argument))
    return cleaned


def without_login(url: str) -> str:
    """An address without user and password; anything else as it is."""
    scheme, found, rest = url.partition("://")
    if not found:
        return url
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _masked(header: str) -> str:
    name, colon, _ = header.partition(":")
    return f"{name}: {HIDDEN}" if colon else header
