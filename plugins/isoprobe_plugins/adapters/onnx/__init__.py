"""Load pairs of ONNX files."""
