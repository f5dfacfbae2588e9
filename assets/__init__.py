"""When it is done: the graph of ``curation.stages`` as Dagster assets, with checks, a job and a schedule.

No logic is here. An asset runs one stage of ``curation`` and returns what it did as metadata.
"""
