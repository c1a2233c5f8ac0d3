"""Training on your own pictures: datasets, the token cache, and the trainer of the IP-Prior."""
