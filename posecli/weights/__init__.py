"""Weights files in and out: safetensors with a header that says everything."""
