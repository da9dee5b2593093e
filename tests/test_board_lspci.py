"""The card is found on the PCI bus by its numbers alone, with lspci and without."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import pytest

from deepfake_fpga.board.lspci import Role, parse_lspci, read_sysfs
from deepfake_fpga.board.releases import Silicon


@pytest.mark.parametrize(
    "header",
    [
        "17:00.1 Memory controller: Xilinx Corporation Device 5049",
        "17:00.1 Processing accelerators: Xilinx Corporation Device 5049 (rev 01)",
        "0000:17:00.1 Memory controller: Xilinx® Corporation Device 5049",
        "0000:17:00.1 Memory controller [0580]: Xilinx Corporation Device [10ee:5049]",
        "17:00.1 Processing accelerators [1200]: Xilinx Corporation VCK5000 [10ee:5049] (rev 02)",
        "17:00.1 0580: 10ee:5049",
        "17:00.1 1200: 10EE:5049 (rev 01)",
        "   17:00.1 Memory controller: Xilinx Corporation Device 5049 (prog-if 00 [Normal])",
    ],
)
def test_the_words_do_not_count(header: str) -> None:
    (function,) = parse_lspci(f"{header}\n\tFlags: bus master\n\tKernel driver in use: xocl\n")
    assert (function.bdf, function.device) == ("0000:17:00.1", "5049")
    assert (function.silicon, function.role) == (Silicon.PRODUCTION, Role.USER)
    assert function.driver == "xocl"


@pytest.mark.parametrize(
    ("device", "silicon", "role"),
    [
        ("5044", Silicon.ES1, Role.MANAGEMENT),
        ("5045", Silicon.ES1, Role.USER),
        ("5048", Silicon.PRODUCTION, Role.MANAGEMENT),
        ("5049", Silicon.PRODUCTION, Role.USER),
    ],
)
def test_silicon_and_role(device: str, silicon: Silicon, role: Role) -> None:
    (function,) = parse_lspci(f"01:00.0 0580: 10ee:{device}\n")
    assert (function.silicon, function.role, function.other_card) == (silicon, role, "")


@pytest.mark.parametrize(
    ("device", "what"),
    [
        ("5078", "a V65"),
        ("5079", "a V65"),
        ("5094", "a V70"),
        ("5095", "a V70"),
        ("5000", "an Alveo U card"),
        ("5021", "an Alveo U card"),
        ("500c", "an Alveo U card"),
        ("9034", "another device of the vendor"),
    ],
)
def test_neighbours_are_no_vck5000(device: str, what: str) -> None:
    (function,) = parse_lspci(f"01:00.0 0580: 10ee:{device}\n")
    assert function.silicon is None
    assert function.role is None
    assert function.other_card == what


@pytest.mark.parametrize(
    "line",
    [
        "00:00.0 Host bridge: Intel Corporation Device 5048",
        "00:00.0 Host bridge [0600]: Intel Corporation Device [8086:5048]",
        "00:00.0 0600: 8086:10ee",
        "There is a Xilinx card, Device 5048",
    ],
)
def test_other_vendors_are_passed_over(line: str) -> None:
    assert parse_lspci(line + "\n\tKernel driver in use: xocl\n") == ()


def test_modules_are_not_drivers_in_use() -> None:
    (function,) = parse_lspci("01:00.0 0580: 10ee:5048\n\tKernel modules: xclmgmt, vfio-pci\n")
    assert function.driver == ""
    assert function.modules == ("xclmgmt", "vfio-pci")


def test_a_field_belongs_to_the_function_above_it() -> None:
    text = (
        "01:00.0 0580: 10ee:5048\n\n"
        "02:00.0 0600: 8086:1234\n\tKernel driver in use: pcieport\n\n"
        "01:00.1 0580: 10ee:5049\n\tKernel driver in use: xocl\n"
    )
    assert [f.driver for f in parse_lspci(text)] == ["", "xocl"]


def test_a_card_that_fell_off_the_bus() -> None:
    gone, well = parse_lspci("01:00.0 0580: 10ee:5048 (rev ff)\n\n01:00.1 0580: 10ee:5049\n")
    assert gone.off_the_bus
    assert not well.off_the_bus


def function(root: Path, bdf: str, vendor: str, device: str, driver: Optional[str] = None) -> None:
    entry = root / "devices" / bdf
    entry.mkdir(parents=True)
    (entry / "vendor").write_text(vendor + "\n")
    (entry / "device").write_text(device + "\n")
    if driver is not None:
        (root / "drivers" / driver).mkdir(parents=True, exist_ok=True)
        (entry / "driver").symlink_to(Path("..") / ".." / "drivers" / driver)


def test_the_kernels_list(tmp_path: Path) -> None:
    function(tmp_path, "0000:00:00.0", "0x8086", "0x5048", "pcieport")
    function(tmp_path, "0000:3b:00.0", "0x10ee", "0x5048", "xclmgmt")
    function(tmp_path, "0000:3b:00.1", "0x10ee", "0x5049")
    function(tmp_path, "0000:5e:00.0", "0x10ee", "0x5094", "xclmgmt")
    found = read_sysfs(tmp_path / "devices")
    assert [(f.bdf, f.device, f.driver) for f in found] == [
        ("0000:3b:00.0", "5048", "xclmgmt"),
        ("0000:3b:00.1", "5049", ""),
        ("0000:5e:00.0", "5094", "xclmgmt"),
    ]
    assert [f.silicon for f in found] == [Silicon.PRODUCTION, Silicon.PRODUCTION, None]


def test_no_kernels_list(tmp_path: Path) -> None:
    assert read_sysfs(tmp_path / "none") == ()
    broken = tmp_path / "devices" / "0000:3b:00.0"
    broken.mkdir(parents=True)
    assert read_sysfs(tmp_path / "devices") == ()
