"""Duplicates, contamination, splits: near, but not the same; and never on both sides."""
