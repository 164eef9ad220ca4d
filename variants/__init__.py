"""Families of compressed model variants: how they are built, measured, stored on disk and opened."""

import os

# onnxruntime reads this when it is imported: left alone, a thread of it sends usage data to the servers of its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
