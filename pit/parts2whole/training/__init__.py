"""Training Parts2Whole: data, caches, what is learned, and the task for the trainer."""
