"""Finding people: images to boxes."""
