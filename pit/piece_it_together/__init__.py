"""Piece it Together: from the IP+ tokens of parts to the tokens of whole concepts."""
