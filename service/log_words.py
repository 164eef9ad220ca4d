"""Words by which a line of the log is known again: whoever starts the server reads in them how the start went."""

from __future__ import annotations

READY = "ready: "
"""The replica is, as far as its log says what is no warning."""
NOTHING = "nothing to serve: "
"""No request of anybody would be answered; what asks for readiness is told so, too."""
REFUSED = "family %s: variant %s is refused: %s"
"""A variant with a fault is not served: family, variant, why."""
LEAVES = "memory_budget leaves "
"""How much models may take, at the start and after a reload."""
NO_ROOM = "not even the smallest variant fits"
"""In that line, where it is so of some families."""
