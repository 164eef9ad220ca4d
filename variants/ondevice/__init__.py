"""Variants for phones and the like: files for LiteRT and ExecuTorch, measured here with those runtimes."""
