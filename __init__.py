"""Face-manipulation detection on the VCK5000: quantize, compile and run U-YNet anywhere.

The areas, top floor first; each may import only those below it:

* ``deploy``     command line, build folder, demo, reports
* ``inference``  devices, sources, the pipeline, sinks, overlays, verdicts
* ``quantize``   U-YNet, its data, calibration and test
* ``compile``    the XIR graph, the ``.xmodel`` file, targets, the compiler
* ``board``      the card and the vendor's tools on this host
* ``errors``, ``preprocessing``, ``files`` …  plain shared records
"""

__version__ = "0.1.0"
