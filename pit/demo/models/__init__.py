"""The miniature models of the creature domain."""
