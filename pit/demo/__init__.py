"""The creature domain: drawings whose every attribute is known, and miniature models of the whole chain."""
