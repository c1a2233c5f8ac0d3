"""pOps: operators on image embeddings, from texturing to words (arXiv 2406.01300)."""
