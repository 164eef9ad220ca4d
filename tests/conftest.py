"""What holds for all tests: the developer's own settings and a busy machine change no result."""

from __future__ import annotations

import os

from hypothesis import settings

# Hypothesis fails an example that takes longer than 200 ms, which on a shared machine says nothing about the code.
settings.register_profile("pareto", deadline=None)
settings.load_profile("pareto")

for variable in [name for name in os.environ if name.upper().startswith("PARETO_") and name != "PARETO_CACHE"]:
    del os.environ[variable]
