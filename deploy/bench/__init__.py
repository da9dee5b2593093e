"""Devices measured side by side on the same frames, and the project's own goals for speed."""
