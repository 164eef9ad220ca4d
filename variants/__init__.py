"""Families of compressed model variants: how they are built, measured, stored on disk and opened."""
