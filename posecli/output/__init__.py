"""What leaves the house: drawings, JSON, records, the gallery, media files."""
