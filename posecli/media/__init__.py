"""What is an input, and its pixels."""
