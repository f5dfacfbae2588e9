"""Publishing: dataset frames, parquet in the Hub's layout, gates, cards, plots and the report. No Dagster."""
