"""Piece it Together: from the IP+ tokens of parts to those of whole concepts."""
