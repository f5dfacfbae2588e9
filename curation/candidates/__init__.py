"""Answers: how many are drawn, which of them are used, which are made from others, and which are unfit.

Pure functions over frames and texts; no model is called and nothing is stored here.
"""
