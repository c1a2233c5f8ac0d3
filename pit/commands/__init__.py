"""The commands of `python -m pit`, a file for each."""
