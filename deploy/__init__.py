"""The front: command line, configuration, build folder and manifests, demo, reports."""
