"""Training part words, with a LoRA, on a folder of pictures."""
