"""A model in training -> readings in a file: when to record, the running recorder, what it says at the end."""
