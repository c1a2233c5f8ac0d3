"""Parts2Whole (arXiv 2404.15267): every reference picture to its place, in a given pose."""
