"""The lines of the page's messages: what is counted and recorded, as JSON has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from router.contract import Spell
from router.request import NEVER
from service.canary_trial import Report, State
from service.loaded_family import LoadedFamily
from service.page.tally import Decision, Second, Tally, quantile_s
from variants.shared_sizes import repeated_table_bytes

Message = dict[str, Any]

TOLD_S = 3600.0
"""For so long a trial that has ended is told of."""


def encoded(event: str, said: Message) -> bytes:
    """One server-sent event."""
    return b"event: %s\ndata: %s\n\n" % (event.encode(), orjson.dumps(said))


def family_card(loaded: LoadedFamily) -> Message:
    """What the table of families says of one."""
    variants = loaded.family.variants
    repeated_bytes = repeated_table_bytes(loaded.manifest, [variant.name for variant in variants])
    return {
        "name": loaded.name,
        "variants": [variant.name for variant in variants],
        "of": len(loaded.manifest.variants),
        "best": max(variant.quality for variant in variants),
        "memory_bytes": sum(variant.memory_bytes for variant in variants) - repeated_bytes,
        "refused": len(loaded.refused),
    }


def trial_line(report: Report | None, now: float) -> str:
    """The last trial of a family in a sentence; empty where there was none, or it has been over for `TOLD_S`."""
    if report is None or (report.ended_s is not None and now - report.ended_s > TOLD_S):
        return ""
    share = "copies only" if report.rules.shadow else f"{100 * report.rules.share:.4g} % of the callers"
    compared = report.agreed + report.disagreed
    counted = f"{report.answers} of {report.rules.answers} answers, {report.disagreed} of {compared} compared differ"
    beside = f"revision {report.revision} beside {report.serving}"
    if report.state is State.RUNNING:
        return f"On trial: {beside}, {share}: {counted}."
    why = f" ({report.why})" if report.why else ""
    return f"Trial of {beside}: {report.state.value}{why} after {counted}."


def broken_line(spells: Mapping[str, Spell]) -> str:
    """The variants of a family that are in quarantine, in a sentence; empty where none is."""
    said = [f"{name} ({spell.reason.value.replace('_', ' ')})" for name, spell in sorted(spells.items())]
    return f"In quarantine, until they have been tried again: {', '.join(said)}." if said else ""


def second_line(second: Second) -> list[Any]:
    """One second, in the order of `Second`."""
    at, requests, judged, met, refused, expected, answers = second
    return [at, requests, judged, met, refused, round(expected, 2), answers]


def share_line(recent: Sequence[Second]) -> list[float]:
    """Requests, those with an SLO, those that met it, expected correct in time: of the window."""
    return [
        sum(second.requests for second in recent),
        sum(second.judged for second in recent),
        sum(second.met for second in recent),
        round(sum(second.expected for second in recent), 1),
    ]


def window_lines(window: Sequence[Tally]) -> Message:
    """The last seconds added up."""
    paths: dict[str, int] = {}
    chosen: dict[str, int] = {}
    refused: dict[str, int] = {}
    escalations: dict[str, int] = {}
    for tally in window:
        for (path, variant, _, reason, escalation), count in tally.ended.items():
            if variant:
                way = ">".join(path) if path else variant
                paths[way] = paths.get(way, 0) + count
                chosen[reason.value] = chosen.get(reason.value, 0) + count
                escalations[escalation.value] = escalations.get(escalation.value, 0) + count
            else:
                refused[reason.value] = refused.get(reason.value, 0) + count
    p50_s, p99_s = quantile_s(window, 0.5), quantile_s(window, 0.99)
    return {
        "requests": sum(tally.requests for tally in window),
        "judged": sum(tally.judged for tally in window),
        "met": sum(tally.met for tally in window),
        "refused_requests": sum(tally.refused for tally in window),
        "expected": round(sum(tally.expected for tally in window), 2),
        "p50_ms": 1e3 * p50_s,
        "p99_ms": 1e3 * p99_s,
        "paths": paths,
        "chosen": chosen,
        "refused": refused,
        "escalations": escalations,
    }


def decision_line(decision: Decision) -> Message:
    """One request that ended; milliseconds, and `finished` in seconds on the monotonic clock."""
    number, record = decision
    return {
        "number": number,
        "finished": round(record.finished_s, 3),
        "rows": record.rows,
        "slo_ms": None if record.slo_s == NEVER else round(record.slo_s * 1e3, 2),
        "outcome": record.outcome,
        "reason": record.reason,
        "escalation": record.escalation,
        "variant": record.variant,
        "path": record.path,
        "confidence": round(record.confidence, 4),
        "batch": record.batch_size,
        "queue_ms": round(record.queue_s * 1e3, 2),
        "compute_ms": round(record.compute_s * 1e3, 2),
        "total_ms": round((record.finished_s - record.arrival_s) * 1e3, 2),
        "slo_met": record.slo_met,
    }
