"""Chat models: in this process or behind a server, all behind one protocol (``protocol.py``)."""
