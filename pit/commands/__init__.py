"""The commands of `python -m pit`, one file each."""
