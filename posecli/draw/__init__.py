"""Drawing on frames: skeletons, trails, face blur."""
