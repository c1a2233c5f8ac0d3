"""The creature domain: a renderer that knows every attribute, and a miniature of the whole chain."""
