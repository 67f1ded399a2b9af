"""A bucket's objects, for a data folder that several hosts share."""
