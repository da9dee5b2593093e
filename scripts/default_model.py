"""Makes the compiled model that ships in deploy/data from the checkpoint that ships there.

Run as ``python scripts/default_model.py`` after a new checkpoint was trained. It draws the
calibration faces of the demo, calibrates, tests and compiles, and keeps the compiled model with
its manifest.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from deepfake_fpga.deploy.build_folder import MANIFEST, BuildFolder
from deepfake_fpga.deploy.compilation import CompileRequest, compile_build
from deepfake_fpga.deploy.defaults import DATA, DEMO_CHECKPOINT, MODEL
from deepfake_fpga.deploy.demo import draw_faces
from deepfake_fpga.deploy.progress import show_progress
from deepfake_fpga.deploy.quantization import QuantRequest, calibrate, measure


def main() -> None:
    """Builds in a temporary folder, with relative paths, so that no machine's path is recorded."""
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            build, data = BuildFolder(Path("build")), Path("data")
            draw_faces(data, show_progress)
            checkpoint = Path(shutil.copy(str(DEMO_CHECKPOINT), DEMO_CHECKPOINT.name))
            calibrate(QuantRequest(build, data / "calibration", checkpoint), print, show_progress)
            measure(QuantRequest(build, data / "test"), print, show_progress)
            compile_build(CompileRequest(build), print)
            for name in (MODEL, MANIFEST):
                shutil.copy(str(build.compiled / name), str(DATA / name))
                print(DATA / name)
        finally:
            os.chdir(str(home))


if __name__ == "__main__":
    main()
