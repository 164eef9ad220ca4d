"""What runs a model file: one small interface (`contract`), and one file for each runtime."""
