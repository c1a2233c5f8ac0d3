"""Weight files, pictures and our own records on disk: read, checked, recognized, written."""
