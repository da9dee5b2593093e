"""The evidence of a run: a report for people, a timeline, and a manifest that can be verified."""
