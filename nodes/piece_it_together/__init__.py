"""Piece it Together as nodes."""
