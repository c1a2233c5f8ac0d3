"""Concepts as they travel: IP+ tokens, what they have in common with image embeddings, and directions."""
