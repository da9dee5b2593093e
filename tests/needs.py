"""Marks for tests that need packages which a bare installation lacks."""

from __future__ import annotations

import importlib.util

import pytest

from deepfake_fpga.inference.devices import sim_available

needs_av = pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="needs PyAV")
needs_sim = pytest.mark.skipif(not sim_available()[0], reason=sim_available()[1])
