"""Devices, sources, the pipeline, sinks, overlays and verdicts."""
