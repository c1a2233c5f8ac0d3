"""PartCraft: a word for each part of a collection of pictures, and prompts that mix them."""
