"""Training an Embedding Optimizer: triplets of scene, object and both together, what is learned, and how."""
