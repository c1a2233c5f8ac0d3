"""The whole of Piece it Together at its published sizes, against the implementations of others."""
