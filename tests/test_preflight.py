"""What is looked at before the first native call, and the words it is refused with."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Dict, List

import pytest

from deepfake_fpga.compile.targets import TARGETS, target_by_name
from deepfake_fpga.compile.xir.attributes import string, uint64
from deepfake_fpga.compile.xir.graph import Graph
from deepfake_fpga.compile.xir.xmodel import read_xmodel
from deepfake_fpga.errors import DeviceError
from deepfake_fpga.inference.devices import choose_device, choose_simulated
from deepfake_fpga.inference.devices import preflight as module
from deepfake_fpga.inference.devices.card import open_card
from deepfake_fpga.inference.devices.preflight import (
    Check,
    build_of,
    check_firmware,
    check_host,
    check_model,
    check_nodes,
    find_runtime,
    refuse,
)

from .cards import card_options, sums
from .fake_vendor import fake_vendor

PATH = Path("somewhere") / "YNET.xmodel"
NO_CARD: Dict[str, str] = {}


def xclbin(folder: Path, build: str = "8PE", name: str = "") -> Dict[str, str]:
    """The environment with an xclbin as release 3.0 installs it."""
    name = name or f"dpu_DPUCVDX8H_{build}_350M_xilinx_vck5000_gen4x8_qdma_base_2.xclbin"
    path = folder / "overlaybins" / "DPUCVDX8H" / build / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"xclbin2")
    return {"XLNX_VART_FIRMWARE": str(path)}


def wrong(checks: List[Check]) -> Dict[str, Check]:
    return {check.name: check for check in checks if not check.ok}


# -- the model ----------------------------------------------------------------------------------


def test_a_model_of_the_cards_build_is_fit(tmp_path: Path) -> None:
    checks = check_model(sums(), PATH, drop_in=True, environment=xclbin(tmp_path))
    assert [check.name for check in checks] == ["model", "runner", "instructions", "fingerprint"]
    assert not wrong(checks)
    assert "0x501000000140fee" in checks[-1].evidence
    assert "librt-engine.so" in checks[1].evidence


@pytest.mark.parametrize(
    ("name", "batch"),
    [("vck5000_8pe_pointpillars_v2.5.xmodel", 8), ("vck5000_6pedwc_pointpillars_v2.5.xmodel", 6)],
)
def test_a_genuine_model_is_fit_for_a_genuine_card(
    shared: Path, tmp_path: Path, name: str, batch: int
) -> None:
    graph = read_xmodel(shared / "xmodels" / name)
    build = {8: "8PE", 6: "6PE_aieDWC"}[batch]
    assert not wrong(check_model(graph, PATH, environment=xclbin(tmp_path, build)))


def test_a_model_for_another_build_is_refused_with_all_three_names(
    shared: Path, tmp_path: Path
) -> None:
    graph = read_xmodel(shared / "xmodels" / "vck5000_6pedwc_pointpillars_v2.5.xmodel")
    environment = xclbin(tmp_path)
    found = wrong(check_model(graph, PATH, environment=environment))["fingerprint"]
    for words in (
        str(PATH),
        environment["XLNX_VART_FIRMWARE"],
        "DPUCVDX8H/VCK50006PEDWC",
        "DPUCVDX8H/VCK50008PE",
        "0x501000000160c2f",
        "0x501000000140fee",
    ):
        assert words in found.evidence
    assert "deepfake-fpga compile --backend vitis -a 8pe_normal" in found.fix
    assert "setup.sh DPUCVDX8H_6pe_dwc" in found.fix
    off = {**environment, "XLNX_ENABLE_FINGERPRINT_CHECK": "0"}
    assert not wrong(check_model(graph, PATH, environment=off))


def test_a_model_for_es1_silicon_says_so(tmp_path: Path) -> None:
    graph = sums("DPUCVDX8H_ISA1_F2W2")
    found = wrong(check_model(graph, PATH, True, xclbin(tmp_path)))["fingerprint"]
    assert "ES1" in found.evidence
    assert "0xfee" in found.evidence
    assert "1.4.1" in found.evidence
    es1 = xclbin(tmp_path / "es1", name="dpu_8PE_vck5000-es1_gen3x16_base_2.xclbin")
    assert not wrong(check_model(graph, PATH, True, es1))


@pytest.mark.parametrize(
    "name", ["vck190_densebox_v1.4.1.xmodel", "zcu102_pointpillars_v2.5.xmodel"]
)
def test_a_model_for_another_card_is_refused(shared: Path, tmp_path: Path, name: str) -> None:
    graph = read_xmodel(shared / "xmodels" / name)
    found = wrong(check_model(graph, PATH, environment=xclbin(tmp_path)))
    assert "no build for the VCK5000" in found["fingerprint"].evidence


def test_an_unknown_fingerprint_is_not_taken_for_the_name_beside_it(tmp_path: Path) -> None:
    graph = sums()
    graph.subgraphs("DPU")[0].attrs["dpu_fingerprint"] = uint64(0x501000000999FEE)
    found = wrong(check_model(graph, PATH, True, xclbin(tmp_path)))
    assert "0x501000000999fee" in found["fingerprint"].evidence


def test_a_model_of_our_compiler_has_no_instructions_for_a_card(tmp_path: Path) -> None:
    found = wrong(check_model(sums(), PATH, drop_in=False, environment=xclbin(tmp_path)))
    assert list(found) == ["instructions"]
    assert "our own compiler" in found["instructions"].evidence
    assert found["instructions"].fix == "deepfake-fpga compile --backend vitis -a 8pe_normal"


def test_a_model_without_the_mode_run_is_refused(tmp_path: Path) -> None:
    graph = sums()
    for value in (None, string("librt-engine.so")):
        graph.subgraphs("DPU")[0].attrs.pop("runner", None)
        if value is not None:
            graph.subgraphs("DPU")[0].attrs["runner"] = value
        assert "runner" in wrong(check_model(graph, PATH, True, xclbin(tmp_path / str(value))))


def test_a_quantized_model_is_not_compiled(shared: Path) -> None:
    path = shared / "golden" / "uynet_w8" / "quantize_result" / "UYNet_int.xmodel"
    found = wrong(check_model(read_xmodel(path), path))
    assert "not compiled" in found["model"].evidence
    assert f"-x {path}" in found["model"].fix


# -- the firmware -------------------------------------------------------------------------------


def test_firmware_is_a_file_or_a_folder_with_some(tmp_path: Path) -> None:
    assert "not set" in check_firmware({}).evidence
    assert "not there" in check_firmware({"XLNX_VART_FIRMWARE": "/no/such.xclbin"}).evidence
    empty = check_firmware({"XLNX_VART_FIRMWARE": str(tmp_path)})
    assert "without an xclbin" in empty.evidence
    assert "setup.sh" in empty.fix
    environment = xclbin(tmp_path)
    assert check_firmware(environment).ok
    folder = str(Path(environment["XLNX_VART_FIRMWARE"]).parent)
    assert check_firmware({"XLNX_VART_FIRMWARE": folder}).ok


def test_one_of_several_xclbins_in_a_folder_is_enough(tmp_path: Path) -> None:
    for build in ("6PE_aieDWC", "8PE"):
        (tmp_path / f"dpu_DPUCVDX8H_{build}_350M.xclbin").write_bytes(b"x")
    environment = {"XLNX_VART_FIRMWARE": str(tmp_path)}
    assert not wrong(check_model(sums(), PATH, True, environment))
    assert wrong(check_model(sums("DPUCVDX8H_ISA1_F2W4_4PE"), PATH, True, environment))


@pytest.mark.parametrize(
    ("path", "variant"),
    [
        ("8PE/dpu_DPUCVDX8H_8PE_350M_xilinx_vck5000_gen4x8_qdma_base_2.xclbin", "8pe_normal"),
        ("6PE_aieDWC/dpu_DPUCVDX8H_6PE_aieDWC_350M_xilinx_vck5000.xclbin", "6pe_dwc"),
        ("6PE_aieMISC/dpu_DPUCVDX8H_6PE_aieMISC_350M_xilinx_vck5000.xclbin", "6pe_misc"),
        ("4PE/dpu_DPUCVDX8H_4PE_350M_xilinx_vck5000.xclbin", "4pe_miscdwc"),
        ("6pedwc/dpu.xclbin", "6pe_dwc"),  # release 2.0 names the folder so
        ("8pe/dpu.xclbin", "8pe_normal"),
        ("mine/dpu.xclbin", None),
    ],
)
def test_the_build_is_in_the_xclbins_name(path: str, variant: str) -> None:
    found = build_of(Path("/opt/xilinx/overlaybins/DPUCVDX8H") / path)
    assert found == (None if variant is None else target_by_name(variant))


def test_an_xclbin_of_unknown_build_is_left_to_the_runtime(tmp_path: Path) -> None:
    environment = xclbin(tmp_path, "mine", "own.xclbin")
    for target in TARGETS[:4]:
        checks = check_model(sums(target.dpu_name), PATH, True, environment)
        assert not wrong(checks)
        assert "does not tell" in checks[-1].evidence


# -- the runtime --------------------------------------------------------------------------------


def test_a_runtime_in_another_python_is_found_by_the_variable(tmp_path: Path) -> None:
    python = tmp_path / "python-of-the-container"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    variables = {**os.environ, **fake_vendor(tmp_path / "modules")}
    runtime = find_runtime("", {**variables, module.PYTHON_VARIABLE: str(python)})
    assert runtime.check.ok
    assert runtime.python == str(python)
    assert runtime.drop_in
    assert str(tmp_path / "modules" / "vart.py") in runtime.check.evidence
    assert find_runtime(str(python), variables).python == str(python)


def test_the_systems_python_is_tried_where_this_one_has_no_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python3"
    modules = fake_vendor(tmp_path / "modules")
    words = " ".join(f"{name}='{value}'" for name, value in modules.items())
    python.write_text(f'#!/bin/sh\n{words} exec {sys.executable} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(module, "SYSTEM_PYTHON", python)
    monkeypatch.delenv(module.PYTHON_VARIABLE, raising=False)
    runtime = find_runtime()
    assert runtime.check.ok
    assert runtime.python == str(python)
    assert "this one has none" in runtime.check.evidence
    assert not find_runtime(thorough=False).check.ok


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 3", "status 3"),
        ("echo 'F0101 [UNILOG][FATAL][X][y] z' >&2; kill -6 $$", "[UNILOG][FATAL]"),
        ("echo noise", "status 0"),
        ("sleep 60", "within 1 s"),
    ],
)
def test_a_python_that_fails_to_import_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    python = tmp_path / "python3"
    python.write_text(f"#!/bin/sh\n{script.replace('sleep', 'exec sleep')}\n", encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(module, "PROBE_SECONDS", 1.0)
    check = find_runtime(str(python)).check
    assert not check.ok
    assert words in check.evidence
    assert module.PYTHON_VARIABLE in check.fix


def test_a_python_that_is_not_there_is_said() -> None:
    assert "cannot be started" in find_runtime("/no/such/python").check.evidence


def test_an_unrelated_xir_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "xir").mkdir()
    (tmp_path / "xir" / "__init__.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(module, "SYSTEM_PYTHON", tmp_path / "none")
    monkeypatch.delenv(module.PYTHON_VARIABLE, raising=False)
    check = find_runtime().check
    assert "not the vendor's" in check.evidence
    assert "pip uninstall xir" in check.fix


def test_a_genuine_runtime_wants_device_nodes() -> None:
    assert check_nodes(drop_in=True).ok
    check = check_nodes(drop_in=False)
    if not list(Path("/dev/dri").glob("renderD*")):
        assert not check.ok
        assert "--device" in check.fix


# -- all of it ----------------------------------------------------------------------------------


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(DeviceError, match=r"\(firmware, nodes\)") as error:
        refuse([Check("firmware", False, "a", "fix a"), Check("nodes", False, "b", "fix b")])
    assert error.value.evidence == "firmware: a; nodes: b"
    assert error.value.next_step.startswith("fix a; ")
    refuse([Check("firmware", True, "a")])


def test_missing_firmware_is_refused_before_a_native_call(tmp_path: Path) -> None:
    graph: Graph = sums()
    with pytest.raises(DeviceError, match=r"\(firmware\)") as error:
        open_card(
            graph,
            graph.subgraphs("DPU"),
            batch=8,
            options=card_options(tmp_path, firmware=False),
        )
    assert "setup.sh" in error.value.next_step
    jobs = tmp_path / "state" / "jobs"
    assert not jobs.exists()


def test_a_model_for_another_build_is_refused_before_a_native_call(tmp_path: Path) -> None:
    graph = sums()
    with pytest.raises(DeviceError, match=r"\(fingerprint\)") as error:
        open_card(
            graph,
            graph.subgraphs("DPU"),
            batch=8,
            options=card_options(tmp_path, variant="6pe_dwc"),
        )
    assert "6PE_aieDWC" in error.value.evidence
    assert "compile --backend vitis -a 6pe_dwc" in error.value.next_step


def test_auto_says_why_it_does_not_take_a_card_that_is_there(tmp_path: Path) -> None:
    options = card_options(tmp_path, variant="4pe_miscdwc")
    name, reason = choose_device("auto", sums(), PATH, options)
    assert name == choose_simulated()[0]
    assert "fingerprint" in reason
    assert "DPUCVDX8H/VCK50004PE" in reason
    name, reason = choose_device("auto", sums("DPUCVDX8H_ISA1_F2W4_4PE"), PATH, options)
    assert name == "card"
    assert "F2W4_4PE" in reason


def test_the_checks_of_a_host_without_anything_are_quick_and_complete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*words: object, **options: object) -> None:
        raise AssertionError("an interpreter was started")

    monkeypatch.setattr(module.subprocess, "run", never)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    checks, _ = check_host("", {})
    assert [check.name for check in checks] == ["xir and vart", "firmware", "device nodes"]
    assert not checks[0].ok
    assert not checks[1].ok
