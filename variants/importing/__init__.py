"""Foreign ONNX models as families: what they take and give, the rows they are measured on, their variants."""
