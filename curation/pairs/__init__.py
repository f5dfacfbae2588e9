"""Pairs of answers: how they are built and which of them are kept."""
