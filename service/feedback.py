"""Delayed ground truth: what was answered is remembered by request id until somebody says what was right.

`POST /v2/models/{m}/feedback` with `{"answers": [{"id": "...", "labels": ["yes", 1, null]}]}`: for each row of that
request the label's name or index, null where it is not known. An answer is judged once under each of its ids.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import orjson

from router.agreement import Share
from service.oip.errors import ECHO_CHARACTERS, malformed, shown
from service.work import Answer

ENTRY_BYTES = 560
"""What an answer takes beside its rows, its place among the others included: 540 as measured with tracemalloc."""
ROW_BYTES = 48
SHOWN_UNKNOWN = 100
"""Ids that nobody knows are named in the reply, so many at most; all are counted."""


Key: TypeAlias = tuple[str, str, str]
"""Family, tenant and id."""


class Given(NamedTuple):
    """An answer: the label and the variant of each row, and when it was given."""

    labels: tuple[int, ...]
    variants: tuple[str, ...]
    given_s: float
    size_bytes: int


class Counts:
    """What is known of one variant: rows judged, rows that were right, and the share of them of late."""

    __slots__ = ("correct", "rows", "share")

    def __init__(self, window_s: float) -> None:
        self.rows = self.correct = 0
        self.share = Share(window_s)


class Feedback:
    """The last answers by family, tenant and id, `limit_bytes` of them and none older than `keep_s`; and the verdicts.

    Tenants may use the same ids: neither forgets nor judges what is another's.
    """

    def __init__(self, limit_bytes: int, keep_s: float, window_s: float) -> None:
        self._limit_bytes = limit_bytes
        self._keep_s = keep_s
        self._window_s = window_s
        # Ordered: in a plain dict the oldest is found behind all the places that older ones have left.
        self._given: OrderedDict[Key, Given] = OrderedDict()
        # For those who speak for everybody: the tenant that was last answered under this id.
        self._latest: dict[tuple[str, str], str] = {}
        self._held_bytes = 0
        self._counts: dict[tuple[str, str], Counts] = {}
        self.unknown: dict[str, int] = {}
        """Ids so far that meant no answer, by family."""

    def remember(self, family: str, name: str, answer: Answer, now: float) -> None:
        """Keep what a request with this id was answered; an older one of that tenant and id is forgotten."""
        size_bytes = ENTRY_BYTES + len(name) + ROW_BYTES * len(answer.record.row_variants)
        if size_bytes > self._limit_bytes:
            return
        tenant = answer.record.tenant
        key = (family, tenant, name)
        self._forget(key)
        labels = tuple(answer.answers.labels.tolist())
        self._given[key] = Given(labels, answer.record.row_variants, now, size_bytes)
        self._latest[family, name] = tenant
        self._held_bytes += size_bytes
        while self._held_bytes > self._limit_bytes:
            self._forget(next(iter(self._given)))

    def judge(self, family: str, label_names: Sequence[str], body: bytes, now: float, tenant: str = "") -> bytes:
        """Count what a body says, and the reply to it. Raises `ProtocolError` 400; then nothing of it is counted.

        Who says which `tenant` it is judges that one's answers alone; those of others are not known. Who says none
        means the last answer of that id.
        """
        self._expire(now)
        index = {name: number for number, name in enumerate(label_names)}
        known: dict[Key, tuple[Given, list[int | None]]] = {}
        unknown: list[str] = []
        for place, (name, said) in enumerate(_read(body)):
            labels = [_label(label, index, f"answers[{place}].labels[{row}]") for row, label in enumerate(said)]
            key = (family, tenant or self._latest.get((family, name), ""), name)
            given = self._given.get(key)
            if given is None or key in known:
                unknown.append(name)
                continue
            if len(labels) != len(given.labels):
                rows = f"{len(given.labels)} labels, one for each row of the request"
                raise malformed(f"answers[{place}].labels", rows, str(len(labels)))
            known[key] = (given, labels)
        judged = right = 0
        for key, (given, labels) in known.items():
            self._forget(key)
            for label, answered, variant in zip(labels, given.labels, given.variants, strict=True):
                if label is not None:
                    self._count(family, variant, label == answered, now)
                    judged, right = judged + 1, right + (label == answered)
        self.unknown[family] = self.unknown.get(family, 0) + len(unknown)
        return orjson.dumps(
            {
                "model_name": family,
                "answers": len(known),
                "rows": judged,
                "correct": right,
                "unknown": len(unknown),
                "unknown_ids": [name[:ECHO_CHARACTERS] for name in unknown[:SHOWN_UNKNOWN]],
            }
        )

    def counts(self) -> Iterator[tuple[str, str, Counts]]:
        """Family, variant, and what is known of it."""
        for (family, variant), counts in list(self._counts.items()):
            yield family, variant, counts

    @property
    def remembered(self) -> int:
        """Entries that are kept: an answer has one for each of its ids."""
        return len(self._given)

    def _count(self, family: str, variant: str, right: bool, now: float) -> None:
        counts = self._counts.get((family, variant))
        if counts is None:
            counts = self._counts[family, variant] = Counts(self._window_s)
        counts.rows += 1
        counts.correct += right
        counts.share.add(int(right), 1, now)

    def _expire(self, now: float) -> None:
        while self._given:
            key = next(iter(self._given))
            if now - self._given[key].given_s <= self._keep_s:
                return
            self._forget(key)

    def _forget(self, key: Key) -> None:
        given = self._given.pop(key, None)
        if given is not None:
            self._held_bytes -= given.size_bytes
            family, tenant, name = key
            if self._latest.get((family, name)) == tenant:
                del self._latest[family, name]


def _read(body: bytes) -> list[tuple[str, list[Any]]]:
    """The ids and labels of a body."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise malformed("body", "JSON", str(error)[:200]) from None
    answers = document.get("answers") if isinstance(document, dict) else None
    if not isinstance(answers, list):
        raise malformed("answers", "a list of objects with id and labels", shown(answers))
    told: list[tuple[str, list[Any]]] = []
    for place, answer in enumerate(answers):
        given: Mapping[str, Any] = answer if isinstance(answer, dict) else {}
        name, labels = given.get("id"), given.get("labels")
        if not isinstance(name, str):
            raise malformed(f"answers[{place}].id", "a string", shown(name))
        if not isinstance(labels, list):
            raise malformed(f"answers[{place}].labels", "a list", shown(labels))
        told.append((name, labels))
    return told


def _label(value: Any, index: Mapping[str, int], field: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) and value in index:
        return index[value]
    if type(value) is int and 0 <= value < len(index):
        return value
    names = ", ".join(list(index)[:10]) + ", ..." * (len(index) > 10)
    raise malformed(field, f"null, an index below {len(index)} or a name ({names})", shown(value))
