"""The gateway under test, asked before and after a run what it is, what it serves and how it fares."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from loadtests.fetch import Answer, fetch

_SHOWN = 160


class TargetError(Exception):
    """The gateway does not give what is needed. The message is one line: what, where, and what to do."""


class NotLetInError(TargetError):
    """It wants to know who asks, or does not let them in there."""


@dataclass(frozen=True, slots=True)
class Served:
    """A family as the gateway describes it. `slo_s` and `revision` are None where it does not say.

    `shapes` and `datatypes` are those of the inputs, -1 being a dimension of any length; `variants` can answer.
    """

    family: str
    variants: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    datatypes: Mapping[str, str]
    revision: str | None
    slo_s: float | None


@dataclass(frozen=True, slots=True)
class Target:
    """Where the gateway is (no slash at the end), and what goes with each request to it."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    insecure: bool = False

    def about(self) -> dict[str, Any]:
        """What the server says of itself: name, version and, where it tells it, commit. Raises `TargetError`."""
        said = self._json("/v2")
        if not isinstance(said, dict) or "name" not in said:
            raise TargetError(f"{self.url} does not speak the Open Inference Protocol: GET /v2 has no name")
        return {name: said[name] for name in ("name", "version", "commit") if isinstance(said.get(name), str)}

    def families(self) -> tuple[str, ...]:
        """Families that have something ready, in the gateway's order. Raises `TargetError`."""
        index = self._json("/v2/repository/index", b'{"ready": true}')
        try:
            return tuple(dict.fromkeys(str(entry["name"]) for entry in index))
        except (KeyError, TypeError) as error:
            raise TargetError(f"{self.url}/v2/repository/index: is no list of models ({error!r})") from None

    def served(self, family: str) -> Served:
        """One family. Raises `TargetError`, with what is served, for one that is not."""
        answer = self.ask(f"/v2/models/{family}")
        if answer.status == 404:
            known = ", ".join(self.families()) or "nothing"
            raise TargetError(f"{self.url} does not serve {family!r}, but {known}; see --family")
        said = self._read(f"/v2/models/{family}", answer)
        try:
            parameters = said.get("parameters") or {}
            slo_ms = parameters.get("default_slo_ms")
            return Served(
                family,
                tuple(str(version) for version in said["versions"]),
                {tensor["name"]: tuple(int(size) for size in tensor["shape"]) for tensor in said["inputs"]},
                {tensor["name"]: str(tensor["datatype"]) for tensor in said["inputs"]},
                parameters.get("revision"),
                float(slo_ms) / 1e3 if slo_ms is not None else None,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TargetError(f"{self.url}/v2/models/{family}: is no description of a model ({error!r})") from None

    def ready(self) -> bool:
        """Whether it takes requests. Raises `TargetError` where nobody answers."""
        return self.ask("/v2/health/ready").status == 200

    def resident_bytes(self) -> float | None:
        """Resident memory of the serving process by its own metrics; None where they do not tell."""
        try:
            answer = self.ask("/metrics")
        except TargetError:
            return None
        for line in answer.body.decode(errors="replace").splitlines() if answer.status == 200 else ():
            name, _, value = line.rpartition(" ")
            if name.partition("{")[0] == "process_resident_memory_bytes":
                try:
                    return float(value)
                except ValueError:
                    return None
        return None

    def ask(self, path: str, body: bytes | None = None) -> Answer:
        """One exchange, whatever its status. Raises `TargetError` where nobody answers, or wants to know who asks."""
        try:
            answer = fetch(self.url + path, body, self.headers, insecure=self.insecure)
        except ssl.SSLError as error:
            raise TargetError(
                f"no gateway at {self.url}: {error.reason or error}; SSL_CERT_FILE names a file of certificates to "
                "believe, --insecure believes any"
            ) from None
        except (OSError, ValueError) as error:
            raise TargetError(f"no gateway at {self.url}: {error}") from None
        if answer.status in (401, 403):
            raise NotLetInError(
                f"{self.url}{path} answers {answer.status}: who asks is not known or not let in; "
                "give a key with --header 'authorization: Bearer ...'"
            )
        return answer

    def _json(self, path: str, body: bytes | None = None) -> Any:
        return self._read(path, self.ask(path, body))

    def _read(self, path: str, answer: Answer) -> Any:
        if answer.status != 200:
            raise TargetError(f"{self.url}{path} answers {answer.status}, expected 200{_said(answer.body)}")
        try:
            return orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            raise TargetError(f"{self.url}{path}: does not answer in JSON, so it is no such gateway") from None


def _said(body: bytes) -> str:
    """What an answer says that is none of a gateway's, as far as it is for people: not a page for browsers."""
    text = " ".join(body.decode(errors="replace").split())
    if text.startswith("<"):
        return "; a page for browsers answers there, so it is no such gateway"
    return f": {text[:_SHOWN]}" if text else ""
