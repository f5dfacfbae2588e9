"""Tests against real servers and a real browser."""
