"""Runs the command line as ``python -m deepfake_fpga``."""

from .deploy.cli import main

if __name__ == "__main__":
    main()
