"""Tests of the Dagster layer: its real definitions, materialized in process."""
