"""What the page says for the closed sets of words of `router.words`: the sentences of docs/reasons.md."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from router.words import Escalation, Reason

CHOSEN: Mapping[str, str] = MappingProxyType(
    {
        Reason.PINNED.value: "the caller named it",
        Reason.STICKY.value: "it answered the same caller a short while ago (sticky_s of its tenant)",
        Reason.RETRIED.value: "another variant broke under the request, and this is the next best that is in time",
        Reason.MOST_ACCURATE.value: "the best variant fitted the slack with everything queued",
        Reason.FITS_SLACK.value: "it is the best one that fitted",
        Reason.BEST_VALUE.value: "of all choices of variant and batch it makes most of the time left for everything "
        "queued and expected",
        Reason.ESCALATED.value: "an earlier answer was unsure, and slack and the other work allowed a better variant",
        Reason.ONLY_VARIANT.value: "no other worth choosing satisfies the request's floor, or is loaded",
        Reason.OVERLOAD.value: "nothing fitted with time to spare: the cheapest allowed variant took what it could",
        Reason.SPARE_CAPACITY.value: "the request has no deadline and nothing with one waited",
        Reason.LATE.value: "the deadline was lost and the caller wants the answer all the same (when_late)",
        Reason.FIXED.value: "the policy always chooses so",
    }
)
"""Why a variant answered."""

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        Reason.DEADLINE_INFEASIBLE.value: "no variant that may answer can meet the SLO: it takes too long, or "
        "others that go first fill the time",
        Reason.OVER_SHARE.value: "the machine is crowded, and the family or the tenant asks for more than its fair "
        "share",
        Reason.QUOTA.value: "the tenant has used up its rate, or has as many unfinished requests as it may",
        Reason.BACKLOG_FULL.value: "too many rows wait, or too many bytes are in flight",
        Reason.NOT_LOADED.value: "nothing that may answer is loaded, yet or any more",
        Reason.QUARANTINED.value: "every variant that may answer broke a short while ago and has to be tried again "
        "first",
        Reason.SHUTDOWN.value: "this replica ends",
        Reason.TIMEOUT.value: "the hard timeout passed",
        Reason.EXECUTOR_ERROR.value: "the model failed on this request",
        Reason.WRONG_OUTPUT.value: "the model gave something that is no answer",
        Reason.CRASHED.value: "the model ended its process",
        Reason.HUNG.value: "the model did not come to an end",
        Reason.OUT_OF_MEMORY.value: "memory ended while the model ran",
        Reason.KILLED.value: "somebody killed the process that the model ran in",
        Reason.EXECUTOR_LOST.value: "another request broke the executor, and no time was left",
        Reason.INTERNAL_ERROR.value: "a rule of the gateway failed",
        Reason.CLIENT_GONE.value: "nobody is there to read it",
    }
)
"""Why nobody answered."""

ESCALATIONS: Mapping[str, str] = MappingProxyType(
    {
        Escalation.NONE.value: "a better variant had nothing to add: no better one may answer, nothing is known of "
        "confidences, or the policy answers once",
        Escalation.CONFIDENT.value: "a better variant was not worth its time: the first answer was sure enough",
        Escalation.ESCALATED.value: "a better variant answered",
        Escalation.NO_TIME.value: "a better variant was wanted, but the deadline or other work came first: the first "
        "answer went out",
        Escalation.FAILED.value: "a better variant failed: the first answer went out",
    }
)
"""What became of a better variant."""
