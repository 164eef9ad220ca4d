"""The same command line once more, in a new program of the same process: what this one has taken is given back."""

from __future__ import annotations

import os
import signal
import sys
from typing import Never

from service.commands.failure import CommandError

_ENDING = frozenset({signal.SIGINT, signal.SIGTERM})


def begin_anew() -> Never:
    """Run this command line again. Raises `CommandError` where the system does not.

    A signal that asks for the end meanwhile waits for `heed_signals`: in between nobody would hear it, and as the first
    process of a container a program would not even be ended by it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - no shell has a say in this
    except OSError as error:
        raise CommandError(
            f"{sys.executable}: cannot be run anew, to serve what was built: {error.strerror}; run this command again"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def heed_signals() -> None:
    """Hear what has waited since `begin_anew`, and what comes from now on."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
