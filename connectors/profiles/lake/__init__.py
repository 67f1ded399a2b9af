"""Tables of a lake: what one version of them holds, read file by file in the order in which it was written."""
