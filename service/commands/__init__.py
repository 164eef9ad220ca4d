"""The commands of `pareto`, one file each. What is heavy (torch, onnxruntime, BentoML) is imported when it runs."""
