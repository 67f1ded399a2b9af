"""Files in object storage: their addresses, listings and versions, and copies of the columns that are asked for."""
