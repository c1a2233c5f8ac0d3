"""Training an IP-Prior: datasets, parts, token caches, and the task."""
