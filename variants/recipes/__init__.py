"""Export and compression techniques, one per file: each takes a model, writes an ONNX file, returns an `Artifact`."""
