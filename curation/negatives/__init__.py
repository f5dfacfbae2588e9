"""Hard negatives: near the anchor, and not a positive. Texts and files are read elsewhere."""
