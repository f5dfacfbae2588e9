"""Removing a prompt, a source or an answer from a workspace, with all that came from it, and proving it."""
