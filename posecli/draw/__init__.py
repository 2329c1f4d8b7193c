"""Drawing on frames: skeletons, trails, hidden faces."""
