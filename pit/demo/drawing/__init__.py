"""Creatures as drawings whose every attribute is known exactly."""
