"""Tracking: ids, box propagation from frame to frame, smoothing."""
