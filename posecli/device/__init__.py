"""Images on a torch device: upload, affine sampling, resizing, non-maximum suppression, batches of one size."""
