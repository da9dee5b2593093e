"""Every recorded output of the card's tools is read; changing what it says changes what is read."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any, Dict, List

import pytest

from deepfake_fpga.board.examine import Place, parse_dump, parse_examine, parse_rail
from deepfake_fpga.board.examine_text import (
    parse_devices,
    parse_management,
    parse_sensor_text,
    parse_versions,
)
from deepfake_fpga.board.lspci import Role, parse_lspci
from deepfake_fpga.board.releases import Silicon
from deepfake_fpga.board.validation import TestState, parse_validation
from deepfake_fpga.errors import FormatError

EXAMINE = "SYNTHETIC_xbutil_examine_vck5000_gen3x16.json"
U280 = "xbutil_examine_thermal_real_u280.json.txt"
RAIL = "xbutil_power_rail_sdr_real.json.txt"
SENSORS = "xbutil_examine_thermal_electrical_gen3x16_doc.txt"
DEVICES = "xbutil_devices_present.txt"
HOST = "prod_gen3x16_lspci_xbmgmt_xbutil.txt"
PLATFORM = "xbmgmt_examine_platform_gen4x8_xdma.txt"
FLASH = "xbmgmt_flash_scan_legacy_es1.txt"
VALIDATE = "xbutil_validate_gen3x16_doc.txt"
VERBOSE = "xbutil_validate_gen4x8_qdma_verbose.txt"
LEGACY = "xbutil_validate_legacy_es1.txt"
LSPCI_ES1 = "lspci_es1.txt"
LSPCI = "lspci_prod_alveo_versal_docs.txt"

READ_HERE = {
    *(EXAMINE, U280, RAIL, SENSORS, DEVICES, HOST, PLATFORM, FLASH),
    *(VALIDATE, VERBOSE, LEGACY, LSPCI_ES1, LSPCI),
}
READ_ELSEWHERE = {
    "arch_json_forms.txt": "compile.targets",
    "runtime_failures.txt": "the devices' and the compiler's logs",
    "vai_c_xir_failures.txt": "the compiler's log",
    "vai_c_xir_success.txt": "the compiler's log",
    "SYNTHETIC_xbutil_examine_vck5000_gen3x16.NOTE.txt": "a note for people",
}


@pytest.fixture
def samples(shared: Path) -> Path:
    return shared / "samples"


def json_of(file: Path) -> Any:
    """The JSON of a sample, below its lines of source and notes."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return json.loads("\n".join(line for line in lines if not line.startswith("#")))


def test_every_sample_has_a_reader(samples: Path) -> None:
    found = {file.name for file in samples.iterdir()}
    assert found == READ_HERE | set(READ_ELSEWHERE)


def test_examine_json(samples: Path) -> None:
    (report,) = parse_examine(json_of(samples / EXAMINE))
    assert report.bdf == "0000:0b:00.1"
    assert {s.name: s.celsius for s in report.sensors} == {
        "pcb_top_front": 24.0,
        "pcb_top_rear": 28.0,
        "pcb_bottom_front": None,  # "0", and is_present denies it
        "fpga0": 36.0,
        "int_vcc": None,
        "fpga_hbm": None,
    }
    assert report.power_watts == pytest.approx(25.839361)
    assert report.max_watts == 225.0
    assert report.power_warning is False
    rails = {rail.name: rail for rail in report.rails}
    assert (rails["12v_aux"].volts, rails["12v_aux"].amps) == (12.188, 0.603)
    assert (rails["3v3_pex"].volts, rails["3v3_pex"].amps) == (3.279, None)
    assert rails["12v_aux"].load == pytest.approx(12.188 * 0.603)
    assert report.platform.shell == "xilinx_vck5000_gen3x16_xdma_base_1"
    assert report.platform.sc_version == report.platform.sc_expected == "4.4.12"
    assert report.platform.ddr_bytes == 12 << 30
    assert report.platform.clocks == (("DATA_CLK", 300.0),)
    assert report.unread == ("no reading of PCB Bottom Front, Int Vcc, FPGA HBM",)


def test_examine_json_of_another_card(samples: Path) -> None:
    (report,) = parse_examine(json_of(samples / U280))
    assert report.bdf == "0000:65:00.1"
    assert [s.celsius for s in report.sensors] == [39.0, 32.0]
    assert report.power_watts is None
    assert "power is not reported" in report.unread


def test_a_rail_of_a_data_driven_shell(samples: Path) -> None:
    rail = parse_rail(json_of(samples / RAIL))
    assert (rail.name, rail.label) == ("5V5 SYS", "5V5 SYS")
    assert (rail.volts, rail.amps, rail.watts, rail.load) == (5.001, None, None, None)
    record = json_of(samples / RAIL)
    del record["current"], record["power"]  # what the reviewer asked for
    assert parse_rail(record) == rail
    record["power"] = {"watts": "12.5", "is_present": "true"}
    assert parse_rail(record).load == 12.5


def change(record: Dict[str, Any], path: str, value: Any) -> Dict[str, Any]:
    """A copy with one entry replaced, or deleted for ``None``."""
    record = copy.deepcopy(record)
    target: Any = record
    *parents, last = [int(p) if p.isdigit() else p for p in path.split("/")]
    for key in parents:
        target = target[key]
    if value is None:
        del target[last]
    else:
        target[last] = value
    return record


@pytest.mark.parametrize("absent", ["N/A", "NA", "", "n/a", None, [], "65535"])
def test_a_temperature_that_is_none(samples: Path, absent: Any) -> None:
    content = change(json_of(samples / EXAMINE), "devices/0/thermals/3/temp_C", absent)
    (report,) = parse_examine(content)
    assert report.sensors[3].celsius is None
    assert "FPGA," in report.unread[0]


@pytest.mark.parametrize(
    ("path", "value", "attribute", "expected"),
    [
        ("electrical/power_consumption_watts", "N/A", "power_watts", None),
        ("electrical/power_consumption_watts", "NA", "power_watts", None),
        ("electrical/power_consumption_watts", None, "power_watts", None),
        ("electrical/power_consumption_watts", 99.5, "power_watts", 99.5),
        ("electrical/power_consumption_max_watts", "N/A", "max_watts", None),
        ("electrical/power_consumption_warning", "true", "power_warning", True),
        ("electrical/power_consumption_warning", True, "power_warning", True),
        ("electrical/power_consumption_warning", "N/A", "power_warning", None),
        ("electrical", None, "power_watts", None),
        ("electrical", "", "rails", ()),
        ("thermals", "", "sensors", ()),
    ],
)
def test_values_that_drift(
    samples: Path, path: str, value: Any, attribute: str, expected: Any
) -> None:
    content = change(json_of(samples / EXAMINE), f"devices/0/{path}", value)
    (report,) = parse_examine(content)
    assert getattr(report, attribute) == expected
    if expected is None and attribute == "power_watts":
        assert any("power" in phrase for phrase in report.unread)


def test_is_present_decides(samples: Path) -> None:
    content = json_of(samples / EXAMINE)
    denied = change(content, "devices/0/thermals/3/is_present", "false")
    assert parse_examine(denied)[0].sensors[3].celsius is None
    untold = change(content, "devices/0/thermals/3/is_present", None)
    assert parse_examine(untold)[0].sensors[3].celsius == 36.0


@pytest.mark.parametrize("content", [None, [], {}, {"devices": 3}, "text", {"devices": {"a": 1}}])
def test_json_that_is_no_report(content: Any) -> None:
    with pytest.raises(FormatError):
        parse_examine(content)


def test_an_empty_list_of_devices_is_written_as_text() -> None:
    assert parse_examine({"devices": ""}) == ()


def test_examine_text(samples: Path) -> None:
    (report,) = parse_sensor_text((samples / SENSORS).read_text(encoding="utf-8"))
    assert report.bdf == "0000:03:00.1"
    assert report.platform.shell == "xilinx_vck5000_gen3x16_xdma_base_1"
    assert [(s.label, s.celsius) for s in report.sensors] == [
        ("PCB Top Front", 24.0),
        ("PCB Top Rear", 28.0),
        ("FPGA", 36.0),
    ]
    assert (report.power_watts, report.max_watts) == (25.839361, 225.0)
    assert report.power_warning is False
    rails = {rail.label: (rail.volts, rail.amps) for rail in report.rails}
    assert len(rails) == 16
    assert rails["12 Volts Auxillary"] == (24.376, 0.603)
    assert rails["3.3 Volts Auxillary"] == (3.327, None)
    assert rails["Vcc 1.2 Volts i"] == (None, 2.2)
    assert rails["Vcc Ram"] == (0.8, None)


def test_examine_text_says_what_is_not_there(samples: Path) -> None:
    text = (samples / SENSORS).read_text(encoding="utf-8")
    (report,) = parse_sensor_text(text.replace("25.839361 Watts", "N/A Watts"))
    assert report.power_watts is None
    assert "power is 'N/A Watts'" in report.unread
    (report,) = parse_sensor_text(text.replace("FPGA     : 36 C", "FPGA     : 96 C"))
    assert report.sensors[2].celsius == 96.0
    assert parse_sensor_text("ERROR: no card") == ()


@pytest.mark.parametrize(
    ("name", "label", "place"),
    [
        ("fpga0", "FPGA", Place.FPGA),
        ("FPGA", "FPGA", Place.FPGA),
        ("fpga_temp", "fpga temp", Place.FPGA),
        ("int_vcc", "Int Vcc", Place.REGULATOR),
        ("VCCINT TEMP", "VCCINT TEMP", Place.REGULATOR),
        ("pcb_top_front", "PCB Top Front", Place.OTHER),
        ("cage_temp_0", "Cage0", Place.OTHER),
    ],
)
def test_where_a_sensor_is(name: str, label: str, place: Place) -> None:
    content = {"devices": [{"thermals": [{"location_id": name, "description": label}]}]}
    assert parse_examine(content)[0].sensors[0].place is place


def test_devices_present_in_three_forms(samples: Path) -> None:
    first, second, third = parse_devices((samples / DEVICES).read_text(encoding="utf-8"))
    assert (first.bdf, first.shell, first.uuid) == ("0000:d8:00.1", "xilinx_vck5000", "")
    assert (first.management, first.ready) == (False, None)
    assert second.shell == "xilinx_vck5000_gen4x8_qdma_base_1"
    assert second.uuid == "7A6A8DF7-6D19-4B73-AAEA-C2A6F9F8D55C"
    assert second.ready is True
    assert third.shell == "xilinx_vck5000-es1_gen3x16_base_2"
    assert (third.management, third.ready) == (True, None)


def test_devices_present_not_ready_and_in_later_forms(samples: Path) -> None:
    text = (samples / DEVICES).read_text(encoding="utf-8")
    assert parse_devices(text.replace("  Yes", "  No"))[1].ready is False
    bars = (
        "|BDF             ||Shell  ||Logic UUID  ||Device ID     ||Device Ready*  |\n"
        "|[0000:d8:00.0]  ||n/a    ||n/a         ||mgmt(inst=5)  ||No             |\n"
    )
    (device,) = parse_devices(bars)
    assert (device.shell, device.management, device.ready) == ("", True, False)
    assert parse_devices("Devices present\n  0 devices found\n") == ()


def test_management_of_a_production_card(samples: Path) -> None:
    (report,) = parse_management((samples / HOST).read_text(encoding="utf-8"))
    assert (report.bdf, report.card_type) == ("0000:0b:00.0", "vck5000")
    assert (report.flash_type, report.name, report.max_watts) == ("ospi_versal", "VCK5000-P", 300)
    assert report.running is not None
    assert report.running.shell == "xilinx_vck5000_gen3x16_xdma_base_1"
    assert report.running.sc_version == "4.4.12"
    assert report.running.uuid == "A96ADB1F-78C8-BEAC-9173-81FEF01B08CD"
    assert report.installed == (report.running,)


def test_management_without_indentation(samples: Path) -> None:
    (report,) = parse_management((samples / PLATFORM).read_text(encoding="utf-8"))
    assert (report.bdf, report.flash_type) == ("0000:d8:00.0", "ospi_xgq")
    assert (report.name, report.max_watts) == ("", None)
    assert report.running is not None
    assert report.running.shell == "xilinx_vck5000_gen4x8_xdma_base_2"
    assert report.running.sc_version == "4.4.32"
    assert report.bootable == (("Default", "ACTIVE"),)


def test_running_and_installed_are_told_apart(samples: Path) -> None:
    text = (samples / PLATFORM).read_text(encoding="utf-8")
    head, _, tail = text.partition("installed in system")
    changed = head + "installed in system" + tail.replace("xdma_base_2", "qdma_base_2")
    (report,) = parse_management(changed)
    assert report.running is not None
    assert report.running.shell.endswith("xdma_base_2")
    assert [p.shell for p in report.installed] == ["xilinx_vck5000_gen4x8_qdma_base_2"]


def test_legacy_flash_scan(samples: Path) -> None:
    (report,) = parse_management((samples / FLASH).read_text(encoding="utf-8"))
    assert (report.bdf, report.card_type) == ("0000:02:00.0", "vck5000-es1")
    assert report.flash_type == "ospi_versal"
    assert report.running is not None
    assert report.running.shell == "xilinx_vck5000-es1_gen3x16_base_2"
    assert (report.running.uuid, report.running.sc_version) == ("0xb376430f2629b15d", "4.4.6")
    assert report.installed == (report.running,)


def test_lspci_of_an_es1_card(samples: Path) -> None:
    functions = parse_lspci((samples / LSPCI_ES1).read_text(encoding="utf-8"))
    assert [(f.bdf, f.device, f.driver) for f in functions] == [
        ("0000:02:00.0", "5044", "xclmgmt"),
        ("0000:02:00.1", "5045", "xocl"),
    ]
    assert {f.silicon for f in functions} == {Silicon.ES1}
    assert [f.role for f in functions] == [Role.MANAGEMENT, Role.USER]
    assert functions[0].slot == functions[1].slot == "0000:02:00"


def test_lspci_of_a_production_card(samples: Path) -> None:
    functions = parse_lspci((samples / HOST).read_text(encoding="utf-8"))
    assert [(f.bdf, f.device, f.driver) for f in functions] == [
        ("0000:0b:00.0", "5048", "xclmgmt"),
        ("0000:0b:00.1", "5049", "xocl"),
    ]
    assert {f.silicon for f in functions} == {Silicon.PRODUCTION}


def test_lspci_from_a_document(samples: Path) -> None:
    """The first function's header line is missing there, the vendor's name has a sign."""
    (function,) = parse_lspci((samples / LSPCI).read_text(encoding="utf-8"))
    assert (function.bdf, function.device, function.driver) == ("0000:02:00.1", "5049", "xocl")


@pytest.mark.parametrize("name", [LSPCI_ES1, HOST, LSPCI])
def test_a_driver_that_is_gone(samples: Path, name: str) -> None:
    text = (samples / name).read_text(encoding="utf-8")
    before = [f.driver for f in parse_lspci(text)]
    after = [f.driver for f in parse_lspci(text.replace("Kernel driver in use: xocl", ""))]
    assert after == ["" if driver == "xocl" else driver for driver in before]
    assert "" in after


def test_validate_of_a_host(samples: Path) -> None:
    found = parse_validation((samples / HOST).read_text(encoding="utf-8"))
    assert found.shell == "xilinx_vck5000_gen3x16_xdma_base_1"
    assert found.sc_version == "4.4.12"
    assert [t.name for t in found.tests] == [
        *("PCIE link", "SC version", "Verify kernel", "DMA", "iops", "Bandwidth kernel")
    ]
    assert {t.state for t in found.tests} == {TestState.PASSED}
    assert found.tests[3].details == (
        "Host -> PCIe -> FPGA write bandwidth = 11160.3 MB/s",
        "Host <- PCIe <- FPGA read bandwidth = 11779.2 MB/s",
    )
    assert found.passed


def test_validate_of_a_document(samples: Path) -> None:
    found = parse_validation((samples / VALIDATE).read_text(encoding="utf-8"))
    assert len(found.tests) == 6
    assert {t.state for t in found.tests} == {TestState.PASSED}
    assert {t.bdf for t in found.tests} == {"0000:01:00.1"}
    assert found.tests[3].details[1] == "Host <- PCIe <- FPGA read bandwidth = 10513.8 MB/s"
    assert found.tests[4].details == ("IOPS: 132544 (hello)",)
    assert found.tests[5].details == ("Maximum throughput: 50540 MB/s",)


def test_validate_verbose_with_warnings(samples: Path) -> None:
    found = parse_validation((samples / VERBOSE).read_text(encoding="utf-8"))
    assert [(t.name, t.state) for t in found.tests] == [
        ("aux-connection", TestState.SKIPPED),
        ("pcie-link", TestState.WARNED),
    ]
    assert found.tests[0].details == ("Aux power connector is not available on this board",)
    assert len(found.tests[1].warnings) == 3
    assert found.tests[1].warnings[2].startswith("instead of Gen 3x8")
    assert "SC version data missing. Upgrade your shell" in found.remarks
    assert found.passed


def test_validate_legacy(samples: Path) -> None:
    found = parse_validation((samples / LEGACY).read_text(encoding="utf-8"))
    states = [(t.name, t.state.value) for t in found.tests]
    assert states == [
        ("AUX power connector check", "SKIPPED"),
        ("Power warning check", "PASSED"),
        ("PCIE link check", "PASSED"),
        ("SC firmware version check", "PASSED"),
        ("verify kernel test", "PASSED"),
        ("IOPS test", "PASSED"),
        ("DMA test", "PASSED"),
        ("device memory bandwidth test", "PASSED"),
        ("PCIE peer-to-peer test", "SKIPPED"),
        ("memory-to-memory DMA test", "SKIPPED"),
        ("host memory bandwidth test", "SKIPPED"),  # the line with its state is cut off
    ]
    assert found.shell == "xilinx_vck5000-es1_gen3x16_base_2"
    assert found.tests[5].details == ("Maximum IOPS: 91255",)
    assert found.passed


def flips(text: str) -> List[str]:
    """The text with one PASSED after the other made FAILED."""
    spots = [m.span() for m in re.finditer(r"\bPASSED(?: WITH WARNINGS)?\b", text)]
    return [text[:a] + "FAILED" + text[b:] for a, b in spots]


@pytest.mark.parametrize("name", [VALIDATE, VERBOSE, LEGACY, HOST])
def test_one_failed_test_fails_the_card(samples: Path, name: str) -> None:
    text = (samples / name).read_text(encoding="utf-8")
    good = [t for t in parse_validation(text).tests if t.state is not TestState.SKIPPED]
    changed = flips(re.sub(r"(?m)^# .*$", "", text))
    assert len(changed) == len(good)
    for test, flipped in zip(good, changed):
        found = parse_validation(flipped)
        assert [t.name for t in found.tests if t.state is TestState.FAILED] == [test.name]
        assert found.reasons == (f"{test.name}: FAILED",)


@pytest.mark.parametrize("name", [VALIDATE, LEGACY, HOST])
def test_a_text_that_breaks_off_is_no_pass(samples: Path, name: str) -> None:
    text = (samples / name).read_text(encoding="utf-8")
    cut = text[: text.rindex("PASSED")].rsplit("\n", 1)[0]
    found = parse_validation(cut)
    assert found.tests[-1].state is TestState.UNFINISHED
    assert not found.passed


def test_versions_of_all_forms() -> None:
    new = "XRT\n  Version              : 2.14.354\n  Branch : 2022.2\n  XOCL  : 2.13.466, f55\n"
    found = parse_versions(new)
    assert (found.xrt, found.xocl, found.xclmgmt) == ("2.14.354", "2.13.466", "")
    old = (
        "XRT Build Version: 2.11.648\n  Build Branch: 2021.1\nXOCL: 2.11.648,a\nXCLMGMT: 2.11.648\n"
    )
    found = parse_versions(old)
    assert (found.xrt, found.xocl, found.xclmgmt) == ("2.11.648", "2.11.648", "2.11.648")
    assert parse_versions("nothing").xrt == ""


def test_legacy_dump_in_volts_and_amperes() -> None:
    """The keys of the legacy tool's tree; its values are text, mV and mA."""
    content = {
        "board": {
            "info": {"dsa_name": "xilinx_vck5000-es1_gen3x16_base_2", "sc_version": "4.4.6"},
            "physical": {
                "thermal": {
                    "pcb": {"top_front": "34", "top_rear": "0", "btm_front": "N/A"},
                    "fpga_temp": "41",
                    "fan_speed": "1200",
                    "tcrit_temp": "99",
                },
                "electrical": {
                    "12v_aux1": {"voltage": "12090"},
                    "vccram": {"voltage": "799", "current": "0"},
                    "vccint": {"voltage": "803", "current": "48000"},
                    "power_warn": {"current": "1"},
                },
                "power": "31",
            },
        }
    }
    report = parse_dump(content)
    assert {s.name: s.celsius for s in report.sensors} == {
        "pcb_top_front": 34.0,
        "pcb_top_rear": None,
        "pcb_btm_front": None,
        "fpga_temp": 41.0,
    }
    assert [(r.name, r.volts, r.amps) for r in report.rails] == [
        ("12v_aux1", 12.09, None),
        ("vccram", 0.799, None),
        ("vccint", 0.803, 48.0),
    ]
    assert (report.power_watts, report.power_warning) == (31.0, True)
    assert report.platform.shell == "xilinx_vck5000-es1_gen3x16_base_2"
    with pytest.raises(FormatError):
        parse_dump({"schema": 1})
