"""Scores of candidates and pairs: plain functions over frames and arrays."""
