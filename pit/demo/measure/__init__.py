"""How well the creature models keep parts, measured against the exact truth."""
