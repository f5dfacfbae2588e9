"""Files in and out: every input format in chunks, outputs written whole, rejects beside them.

    source = open_input("pairs.jsonl")          # InputFile: schema, mixed, chunks(), rejects
    frame, rejects = read_frame("pairs.csv")    # the same, in one frame
    with open_output("out.parquet") as writer:  # appears at the end of the block, or not at all
        writer.write(frame)

Every frame read has its row numbers in the column ``ROW``. What the columns mean (prompts, pairs, dialogues)
is in ``curation.prompts.shapes``; the loop of a stand-alone command is ``curation.commands.streams``.
"""

from curation.files.reading import CHUNK_ROWS, ROW, InputFile, open_input, read_frame
from curation.files.rejects import REJECTS_SCHEMA, Reject, RowError, rejects_frame, rejects_path
from curation.files.writing import (
    OUTPUT_SUFFIXES,
    check_output,
    open_output,
    write_frame,
    write_rejects,
    write_whole,
)

__all__ = [
    "CHUNK_ROWS",
    "OUTPUT_SUFFIXES",
    "REJECTS_SCHEMA",
    "ROW",
    "InputFile",
    "Reject",
    "RowError",
    "check_output",
    "open_input",
    "open_output",
    "read_frame",
    "rejects_frame",
    "rejects_path",
    "write_frame",
    "write_rejects",
    "write_whole",
]
