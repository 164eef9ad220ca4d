"""Asking a Prometheus server, with bounds on everything: seconds, bytes, and what is believed of the answer.

`POST /api/v1/query` of its HTTP API, which is stable; other servers that speak it (Thanos, Mimir, VictoriaMetrics) do.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import httpx
import orjson

MOST_BYTES = 1024 * 1024
"""Of an answer; a reading has some hundred bytes for each family."""
_OK = 200


class Result(StrEnum):
    """What came of one reading; also the `result` label of its metric."""

    TAKEN = "taken"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    HTTP_ERROR = "http_error"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    STALE = "stale"
    """The server's own numbers are old: it has not scraped this fleet for a while, or repeats an answer."""
    INTERNAL_ERROR = "internal_error"
    """A fault of ours."""


class ReadingError(Exception):
    """No reading. The message is one line that says what was wrong, `result` which kind of fault it was."""

    def __init__(self, result: Result, message: str) -> None:
        super().__init__(message)
        self.result = result


class Sample(NamedTuple):
    """One sample of an instant vector: its labels, and its value, which may be anything that a float can be."""

    labels: Mapping[str, str]
    value: float


class Vector(NamedTuple):
    """An instant vector, and when the server evaluated it, seconds since 1970 by its own clock."""

    samples: tuple[Sample, ...]
    evaluated_s: float


class Prometheus:
    """A server at an HTTP(S) URL, which may have a path (`https://host/prefix`) and credentials.

    An answer that is not whole after `timeout_s` is given up. Proxies of the environment are not used.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url.rstrip("/") + "/api/v1/query"
        self._timeout_s = timeout_s
        # It would log a line for each reading, with the credentials in it.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._client: httpx.AsyncClient | None = None

    @property
    def shown(self) -> str:
        """The URL without credentials, for logs."""
        parts = urlsplit(self._url.removesuffix("/api/v1/query"))
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    async def query(self, expression: str) -> Vector:
        """Evaluate an expression now. Raises `ReadingError`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                status, body = await self._post(expression)
        except (TimeoutError, httpx.TimeoutException):
            raise ReadingError(Result.TIMEOUT, f"no whole answer within {self._timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            said = " ".join(str(error).split())[:200]
            raise ReadingError(Result.UNREACHABLE, f"cannot be asked: {said or type(error).__name__}") from None
        if status != _OK:
            raise ReadingError(Result.HTTP_ERROR, f"HTTP {status}: {_shown(body)}")
        # Of a fleet of thousands of families that takes tens of milliseconds, which requests need not wait for.
        return await asyncio.to_thread(_vector, body)

    async def close(self) -> None:
        """Give its connection back."""
        if self._client is not None:
            await self._client.aclose()

    async def _post(self, expression: str) -> tuple[int, bytes]:
        if self._client is None:
            # It reads the certificates of the system, which takes tens of milliseconds.
            self._client = await asyncio.to_thread(httpx.AsyncClient, timeout=self._timeout_s, trust_env=False)
        # Not compressed: a small body could become a huge one.
        headers = {"accept-encoding": "identity"}
        form = {"query": expression, "timeout": f"{math.ceil(self._timeout_s)}s"}
        async with self._client.stream("POST", self._url, data=form, headers=headers) as answer:
            parts: list[bytes] = []
            size = 0
            async for part in answer.aiter_raw():
                size += len(part)
                if size > MOST_BYTES:
                    raise ReadingError(Result.TOO_LARGE, f"an answer of more than {MOST_BYTES} bytes")
                parts.append(part)
            return answer.status_code, b"".join(parts)


def _vector(body: bytes) -> Vector:
    try:
        said = orjson.loads(body)
        if said["status"] != "success" or said["data"]["resultType"] != "vector":
            raise ReadingError(Result.MALFORMED, f"expected a vector, got {_shown(body)}")
        found = said["data"]["result"]
        samples = tuple(Sample(_labels(one["metric"]), float(one["value"][1])) for one in found)
        return Vector(samples, max((float(one["value"][0]) for one in found), default=0.0))
    except (LookupError, TypeError, ValueError) as error:
        fault = " ".join(f"{type(error).__name__}: {error}".split())[:100]
        raise ReadingError(Result.MALFORMED, f"not the answer of a Prometheus ({fault}): {_shown(body)}") from None


def _labels(metric: Any) -> Mapping[str, str]:
    if not isinstance(metric, dict):
        raise TypeError(f"labels: expected an object, got {type(metric).__name__}")
    if not all(isinstance(value, str) for value in metric.values()):
        raise TypeError("labels: expected text")
    return metric


def _shown(body: bytes) -> str:
    text = body[:120].decode("utf-8", "backslashreplace")
    return repr(" ".join(text.split()))
