"""Getting the weights and data that are too large to ship: download, check, unpack, remember."""
