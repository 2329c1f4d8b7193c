"""Training SimCC models on COCO-format keypoints."""
