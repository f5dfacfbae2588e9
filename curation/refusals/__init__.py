"""Refusals: telling them apart, sorting requests into categories, building the dataset, calibration."""
