"""What is to blame for the end of an executor under a batch."""

from __future__ import annotations

import signal

from router.contract import Reason
from service.processes.conversation import NO_TEMPLATE, TEMPLATE_ENDED, End


def reason_of(end: End) -> Reason:
    """What the batch failed by that the executor ran.

    A model does not send SIGKILL. The kernel does where memory ends, and so do others who look after memory or
    containers: whose doing that is, nobody knows.
    """
    if end.said in (TEMPLATE_ENDED, NO_TEMPLATE):
        return Reason.EXECUTOR_LOST
    return Reason.OUT_OF_MEMORY if end.signal == signal.SIGKILL else Reason.CRASHED
