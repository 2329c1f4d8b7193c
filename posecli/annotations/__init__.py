"""The only reader of COCO files: annotations, boxes and results, validated and normalised.

`eval`, `train` and `boxes:` read COCO files through these modules, so that a file means the same to all of them.
Deviations of labelling tools are repaired where their meaning is clear, and reported in one line for each kind with its
count; others raise a DataError that names the file and the entry.
"""
