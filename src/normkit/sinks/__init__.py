"""A recording out into other formats: one file per format, all fed with the same rows."""
