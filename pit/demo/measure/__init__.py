"""How well the creature models keep parts, against the exact truth."""
