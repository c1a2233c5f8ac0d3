"""Creatures as drawings: every attribute exact."""
