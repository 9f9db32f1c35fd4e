"""The recording file: its schema, where it is put, and the thread that writes it."""
