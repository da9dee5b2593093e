"""Data sets for training and tests: masks, crops, splits by identity, and what is wrong in one."""
