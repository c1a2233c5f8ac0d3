"""Visually guided object insertion: a shown thing becomes the text context of an InstructPix2Pix."""
