"""The small bundled models, one folder each, and the scripts that make them again. No stages."""
