"""Network architectures as plain descriptions, each of which can be grown and shrunk, and builds a torch module."""

from __future__ import annotations

import os

# As in `variants.families`: read once, when torch is loaded. Threads that spin at barriers make training on shared
# cores ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
