"""COCO keypoint scoring, confidence intervals and error analysis."""
