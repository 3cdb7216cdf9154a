"""ONNX Runtime sessions and batch scoring of windows."""
