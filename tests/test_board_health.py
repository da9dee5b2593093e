"""The card's readings against its limits, from whichever tool and form there is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from deepfake_fpga.board.examine import DeviceReport, Rail, Sensor
from deepfake_fpga.board.health import (
    LIMITS,
    Limit,
    Limits,
    judge,
    read_all_health,
    read_health,
    user_function,
)
from deepfake_fpga.errors import DeviceError, MissingError, UsageError

from .programs import put_program


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return folder


def report(celsius: Optional[float] = None, **values: Any) -> DeviceReport:
    sensors = (Sensor("fpga0", "FPGA", celsius), Sensor("pcb_top_front", "PCB", 120.0))
    return DeviceReport(sensors=sensors, **values)


@pytest.mark.parametrize(
    ("celsius", "warnings", "stops", "said"),
    [
        (36.0, 0, 0, ""),
        (84.9, 0, 0, ""),
        (85.0, 1, 0, "the limit is 85 °C"),
        (88.0, 1, 0, "the limit is 88 °C (the card's own warning)"),
        (94.9, 1, 0, "the limit is 88 °C"),
        (95.0, 1, 1, "the limit is 95 °C"),
        (100.0, 1, 1, "the limit is 100 °C (the card stops its clocks)"),
        (107.0, 1, 1, "the limit is 107 °C (the card switches itself off)"),
    ],
)
def test_limits_of_the_chip(celsius: float, warnings: int, stops: int, said: str) -> None:
    health = judge(report(celsius))
    assert health.celsius == celsius
    assert (len(health.warnings), len(health.stops)) == (warnings, stops)
    assert said in " ".join(health.warnings)


def test_a_hot_board_is_not_a_hot_chip() -> None:
    """The limits are the chip's; the sensor of the board stands at 120 here."""
    assert judge(report(40.0)).warnings == ()


def test_the_regulator_has_limits_of_its_own() -> None:
    def at(celsius: float) -> DeviceReport:
        return DeviceReport(sensors=(Sensor("int_vcc", "Int Vcc", celsius),))

    assert judge(at(99.0)).warnings == ()
    assert len(judge(at(100.0)).warnings) == 1
    assert judge(at(100.0)).stops == ()
    assert len(judge(at(110.0)).stops) == 1


@pytest.mark.parametrize(
    ("watts", "warnings", "stops"), [(225.0, 0, 0), (226.0, 1, 0), (301.0, 1, 1), (None, 0, 0)]
)
def test_limits_of_the_board(watts: Optional[float], warnings: int, stops: int) -> None:
    health = judge(report(30.0, power_watts=watts))
    assert (len(health.warnings), len(health.stops)) == (warnings, stops)


def test_the_cards_own_warning() -> None:
    assert judge(report(30.0, power_warning=True)).warnings == (
        "the card's own power warning is on",
    )
    assert judge(report(30.0, power_warning=None)).warnings == ()


@pytest.mark.parametrize(
    ("name", "label", "amps", "over"),
    [
        ("12v_pex", "12 Volts PCI Express", 5.7, False),
        ("12v_pex", "12 Volts PCI Express", 5.8, True),  # 69.6 W
        ("12v_aux", "12 Volts Auxillary", 19.2, False),
        ("12v_aux", "12 Volts Auxillary", 19.3, True),  # 231.6 W
        ("12V AUX", "12V AUX", 19.3, True),
        ("12V PEX", "12V PEX", 5.8, True),
        ("vcc1v2_i", "Vcc 1.2 Volts i", 100.0, False),
        ("vccaux", "Vcc Auxillary", 100.0, False),
    ],
)
def test_limits_of_the_supplies(name: str, label: str, amps: float, over: bool) -> None:
    health = judge(report(30.0, rails=(Rail(name, label, 12.0, amps),)))
    assert bool(health.stops) is over


def test_the_hottest_sensor_of_the_chip_counts() -> None:
    sensors = tuple(Sensor(f"fpga{i}", "FPGA", c) for i, c in enumerate((41.0, 77.0, None, 50.0)))
    assert judge(DeviceReport(sensors=sensors)).celsius == 77.0


def test_what_is_not_read_stays_empty_and_is_said() -> None:
    health = judge(report(None, unread=("power is 'N/A'",)))
    assert health.celsius is None
    assert health.power_watts is None
    assert health.notes == ("power is 'N/A'", "no temperature of the FPGA was read")
    assert health.warnings == ()


def test_other_limits() -> None:
    limits = Limits(stop_celsius=Limit(60.0, "a test"))
    assert judge(report(61.0), limits).stops == (
        "the FPGA is at 61 °C, the limit is 60 °C (a test)",
    )


def test_every_limit_has_a_reason_and_they_are_in_order() -> None:
    assert all(limit.reason for limit in vars(LIMITS).values())
    ladder = [
        LIMITS.warn_celsius,
        LIMITS.alarm_celsius,
        LIMITS.stop_celsius,
        LIMITS.clock_off_celsius,
        LIMITS.card_off_celsius,
    ]
    assert [limit.value for limit in ladder] == [85, 88, 95, 100, 107]


@pytest.mark.parametrize("bdf", ["0b:00.0", "0b:00.1", "0000:0b:00.0", "0000:0B:00.1"])
def test_either_function_names_the_card(bdf: str) -> None:
    assert user_function(bdf) == "0000:0b:00.1"


@pytest.mark.parametrize("bdf", ["", "0", "card0", "0b:00", "0000:0b:00.9", "0b:00.1 -r all"])
def test_what_is_no_address(bdf: str) -> None:
    with pytest.raises(UsageError, match="no PCI address"):
        user_function(bdf)


def device(bdf: str, celsius: str, present: str = "true") -> Dict[str, Any]:
    sensor = {"location_id": "fpga0", "description": "FPGA", "temp_C": celsius}
    return {"device_id": bdf, "thermals": [{**sensor, "is_present": present}]}


def put_json(folder: Path, devices: List[Dict[str, Any]], text: str = "") -> None:
    """An xbutil that writes these devices and logs the words it was given."""
    (folder / "report.json").write_text(json.dumps({"devices": devices}))
    (folder / "report.txt").write_text(text)
    put_program(
        folder,
        "xbutil",
        f'echo "$*" >> {folder}/log\n'
        f'while [ "$1" != "-o" ]; do shift; done\n'
        f'cat {folder}/report.json > "$2"; cat {folder}/report.txt',
    )


def test_one_card_is_read_with_one_call(bin_folder: Path) -> None:
    put_json(bin_folder, [device("0000:0b:00.1", "47")])
    health = read_health()
    assert (health.bdf, health.celsius) == ("0000:0b:00.1", 47.0)
    assert health.evidence == ("the JSON of `xbutil examine -r thermal electrical -f JSON -o FILE`")
    (words,) = (bin_folder / "log").read_text().splitlines()
    assert words.startswith("examine -r thermal electrical -f JSON -o ")


def test_the_management_function_is_taken_for_the_card(bin_folder: Path) -> None:
    put_json(bin_folder, [device("0000:0b:00.1", "47")])
    health = read_health("0b:00.0")
    assert health.notes[0] == "0b:00.0 is the management function, 0000:0b:00.1 was read"
    assert "-d 0000:0b:00.1" in (bin_folder / "log").read_text()


def test_of_several_cards_the_hottest(bin_folder: Path) -> None:
    cards = [device("0000:0b:00.1", "47"), device("0000:5e:00.1", "71")]
    put_json(bin_folder, [*cards, device("0000:86:00.1", "99", "false")])
    health = read_health()
    assert (health.bdf, health.celsius) == ("0000:5e:00.1", 71.0)
    assert health.notes[0] == "0000:5e:00.1 is the hottest of 3 cards, none was named"
    assert [h.bdf for h in read_all_health()] == ["0000:0b:00.1", "0000:5e:00.1", "0000:86:00.1"]


def test_another_card_in_the_host_is_left_out(bin_folder: Path) -> None:
    text = (
        "1/2 [0000:0b:00.1] : xilinx_u280_gen3x16_xdma_base_1\nThermals\n"
        "2/2 [0000:5e:00.1] : xilinx_vck5000_gen4x8_qdma_base_2\nThermals\n"
    )
    put_json(bin_folder, [device("0000:0b:00.1", "90"), device("0000:5e:00.1", "50")], text)
    health = read_health()
    assert (health.bdf, health.celsius) == ("0000:5e:00.1", 50.0)
    assert health.shell == "xilinx_vck5000_gen4x8_qdma_base_2"
    put_json(bin_folder, [device("0000:0b:00.1", "90")], text)
    with pytest.raises(DeviceError, match="no VCK5000"):
        read_health()


def test_a_card_that_is_not_there(bin_folder: Path) -> None:
    put_json(bin_folder, [device("0000:0b:00.1", "47")])
    with pytest.raises(DeviceError, match="no card 0000:5e") as caught:
        read_health("5e:00.1")
    assert "0000:0b:00.1" in caught.value.evidence


def test_a_card_without_any_reading(bin_folder: Path) -> None:
    put_json(bin_folder, [device("0000:0b:00.1", "0", "false")])
    with pytest.raises(DeviceError, match="gives no sensor reading"):
        read_health()


def test_text_where_there_is_no_json(bin_folder: Path, shared: Path) -> None:
    sample = shared / "samples" / "xbutil_examine_thermal_electrical_gen3x16_doc.txt"
    put_program(bin_folder, "xbutil", f"cat {sample}")
    health = read_health()
    assert (health.bdf, health.celsius, health.power_watts) == ("0000:03:00.1", 36.0, 25.839361)
    assert health.evidence.startswith("the text of `xbutil examine")


def test_the_legacy_dump_where_there_is_no_examine(bin_folder: Path) -> None:
    dump = {
        "board": {
            "info": {"dsa_name": "xilinx_vck5000-es1_gen3x16_base_2"},
            "physical": {"thermal": {"fpga_temp": "44"}, "power": "28"},
        }
    }
    (bin_folder / "dump.json").write_text(json.dumps(dump))
    put_program(
        bin_folder,
        "xbutil",
        f'[ "$1" = dump ] && exec cat {bin_folder}/dump.json; echo "ERROR: what?" >&2; exit 1',
    )
    health = read_health()
    assert (health.celsius, health.power_watts) == (44.0, 28.0)
    assert health.shell == "xilinx_vck5000-es1_gen3x16_base_2"
    assert health.evidence == "the JSON of `xbutil dump`"
    assert read_health("0b:00.1").bdf == "0000:0b:00.1"


def test_no_card(bin_folder: Path) -> None:
    put_program(bin_folder, "xbutil", "echo 'ERROR: No devices found' >&2; exit 1")
    with pytest.raises(DeviceError, match="gives no report of a card") as caught:
        read_health()
    assert "No devices found" in caught.value.evidence


def test_no_tool(bin_folder: Path) -> None:
    with pytest.raises(MissingError):
        read_health()


def test_a_hung_tool(bin_folder: Path) -> None:
    put_program(bin_folder, "xbutil", "sleep 600")
    with pytest.raises(DeviceError, match="was killed"):
        read_health(timeout=0.5)
