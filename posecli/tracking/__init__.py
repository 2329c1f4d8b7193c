"""People over time: ids, boxes carried from frame to frame, smoothing."""
