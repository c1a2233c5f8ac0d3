"""The one trainer of the pack, and what every training shares. What is trained is told by a `Task`."""
