"""The stages that also stand alone: each command reads a file, calls one library function and writes a file."""
