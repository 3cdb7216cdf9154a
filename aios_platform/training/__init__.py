"""Networks, the Lightning trainer, evaluation, ONNX export."""
