"""What a run writes beside annotated media: records, COCO files, tables, manifest, gallery."""
