"""The command line: one file for each subcommand, which parses options, calls the library and prints."""
