"""COCO keypoint scoring and what explains it."""
