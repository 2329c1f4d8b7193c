"""Backbones of pose models and detectors."""
