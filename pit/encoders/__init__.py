"""Image encoders that several systems look at pictures with."""
