"""The same network on another runtime: files that other runtimes read, made from a variant's ONNX graph."""
