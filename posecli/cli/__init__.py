"""The doors: one file a subcommand; each parses, calls and prints."""
