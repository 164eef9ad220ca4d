"""What a started server says of itself: its address, its metrics, and a line to try."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from service import __version__
from service.addresses import base_url
from service.configuration import KEYS
from service.settings import Settings
from variants.repository import Repository, RevisionFolder

FAVOURITE = "sentiment"
"""The family that the line to try prefers: a sentence reads better than 64 numbers."""

_LONGEST_TEXT = 90
_MOST_NUMBERS = 1000
_MOST_ASKED = 50
"""Of a repository with more families, what became of the others stands in the log alone."""


def banner(
    settings: Settings,
    started_in_s: float,
    console: Console | None = None,
    fault_of: Callable[[str], str] = lambda _: "",
    lack: str = "",
    refused: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> None:
    """Print it; `fault_of` says why a family is not served (nothing where it is), `lack` what memory does not suffice
    for, `refused` the variants with a fault by family.

    Raises `RepositoryError` where the repository has gone.
    """
    console = console or Console()
    repository = Repository(settings.models)
    known = repository.families()
    out = {name: fault for name in known[:_MOST_ASKED] if (fault := fault_of(name))}
    names = [name for name in known if name not in out] or known
    tls = settings.ssl_certfile is not None
    url = base_url(settings.host, settings.port, tls=tls)
    lines = [
        ("ready", f"after {started_in_s:.1f} s, serving {', '.join(names)}"),
        ("address", url),
        ("metrics", f"{url}/metrics"),
        ("try", try_line(url, repository.open(FAVOURITE if FAVOURITE in names else names[0]), settings)),
        ("stop", "Ctrl-C"),
    ]
    if lack:
        lines.insert(1, ("but", lack))
    if without := [f"{name} serves without {', '.join(own)}" for name, own in refused.items() if name in names]:
        lines.insert(1, ("but", f"{'; '.join(without[:_MOST_ASKED])}: see the log"))
    # Of the first that memory does not suffice for it is said already.
    said = {entry.partition(" (")[0] for entry in lack.rpartition(": ")[2].split(", ")}
    if unsaid := [name for name in out if name not in said]:
        lines.insert(1, ("but", "; ".join(out[name] for name in unsaid)))
    if settings.grpc_port is not None:
        # Who has a client of gRPC writes the address like that, whether it is TLS or not.
        lines.insert(2, ("gRPC", base_url(settings.host, settings.grpc_port, tls=tls).partition("://")[2]))
    if settings.admin_port is not None:
        lines.insert(-1, ("admin", base_url(settings.admin_host, settings.admin_port, tls=tls)))
    console.print(Text(f"\nPareto Gateway {__version__}", style="bold green"))
    for label, content in lines:
        # One line however long it is: a wrapped command cannot be copied.
        console.print(Text(f"  {label:<8} ", style="dim").append(content, style="not dim"), soft_wrap=True)
    console.print()


def try_line(url: str, folder: RevisionFolder, settings: Settings) -> str:
    """A curl command with a sample of the family and the SLO that the family has anyway.

    Where a row has more numbers than anybody would paste, the command asks what the family takes instead. Where callers
    need an API key it is taken from the shell's `$KEY`.
    """
    key = ' -H "authorization: Bearer $KEY"' if settings.keys_file is not None or KEYS in os.environ else ""
    manifest = folder.manifest
    slo_ms = settings.family(manifest.name).slo_ms or manifest.default_slo_s * 1e3
    samples = folder.samples()
    if any(np.size(samples[tensor.name][0]) > _MOST_NUMBERS for tensor in manifest.inputs):
        return f"curl -s {url}/v2/models/{manifest.name}{key}"
    inputs = []
    for tensor in manifest.inputs:
        rows = samples[tensor.name]
        row = next((row for row in rows if isinstance(row, bytes) and len(row) <= _LONGEST_TEXT), rows[0])
        flat = [row.decode(errors="replace")] if isinstance(row, bytes) else [_short(value) for value in row.ravel()]
        shape = [1, *tensor.shape[1:]]
        inputs.append({"name": tensor.name, "shape": shape, "datatype": tensor.datatype, "data": flat})
    body = json.dumps({"inputs": inputs}, ensure_ascii=False, separators=(",", ":"))
    path = f"{url}/v2/models/{manifest.name}/infer"
    return f"curl -s {path}{key} -H 'x-slo-latency-ms: {slo_ms:g}' -d {shlex.quote(body)}"


def _short(value: Any) -> Any:
    """Whole numbers without their `.0`, others with the digits that their precision has: 13.73, not 13.72999954."""
    plain = value.item()
    if not isinstance(plain, float):
        return plain
    return int(plain) if plain.is_integer() else float(str(value))
