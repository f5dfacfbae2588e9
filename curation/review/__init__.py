"""Asking people about pairs: a sample goes out, answers come back as labels with their annotator."""
