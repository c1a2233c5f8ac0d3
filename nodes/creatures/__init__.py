"""The creature domain: miniature models, drawings and measures."""
