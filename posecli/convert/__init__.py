"""Conversion of keypoint annotations between COCO and the formats of labelling tools.

Each format has a reader, which makes a dataset.AnnotationSet of a file, and a writer, which makes files of it and
counts what they cannot hold; formats.FORMATS lists them.
"""
