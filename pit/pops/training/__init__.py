"""Training operators of pOps: datasets, pictures, caches of embeddings, and the task."""
