"""The miniature models of the creature domain, and how they are loaded."""
