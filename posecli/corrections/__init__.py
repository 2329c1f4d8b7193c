"""Corrections of a run's predictions: edits in a journal, their merge with the records, and where to look."""
