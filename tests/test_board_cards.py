"""The cards of a host, put together from the PCI bus, xbutil and xbmgmt, each of which may lack."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict

import pytest

from deepfake_fpga.board.cards import Card, CardSearch, find_cards
from deepfake_fpga.board.lspci import PciFunction
from deepfake_fpga.board.releases import Silicon
from deepfake_fpga.errors import DeviceError

from .programs import put_program

LSPCI = """\
0000:0b:00.0 Memory controller [0580]: Xilinx Corporation Device [10ee:5048]
\tKernel driver in use: xclmgmt

0000:0b:00.1 Memory controller [0580]: Xilinx Corporation Device [10ee:5049]
\tKernel driver in use: xocl

"""
SHELL = "xilinx_vck5000_gen4x8_qdma_base_2"
UUID = "05DCA096-76CB-730B-8D19-EC1192FBAE3F"
EXAMINE = f"""\
XRT
  Version              : 2.14.354
  XOCL                 : 2.14.354, abc
  XCLMGMT              : 2.14.354, abc

Devices present
BDF             :  Shell  Platform UUID  Device ID  Device Ready*
[0000:0b:00.1]  :  {SHELL}  {UUID}  user(inst=128)  Yes
"""
PLATFORM = f"""\
1/1 [0000:0b:00.0] : {SHELL}
Flash properties
  Type : ospi_xgq

Flashable partitions running on FPGA
  Platform : {SHELL}
  SC Version : 4.4.35
  Platform UUID : {UUID}

Flashable partitions installed in system
  Platform : {SHELL}
"""


class Host:
    """Programs whose answers a test sets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def answers(self, **texts: str) -> None:
        """Program name to what it prints, whatever it is asked; an error if the text begins so."""
        for name, text in texts.items():
            file = self.folder / f"{name}.txt"
            file.write_text(text)
            end = "exit 1" if text.startswith("ERROR") else "exit 0"
            put_program(self.folder, name, f"cat {file}; {end}")

    def cards(self) -> CardSearch:
        return find_cards(sysfs=self.folder / "devices")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/bin")
    host = Host(folder)
    host.answers(lspci=LSPCI, xbutil=EXAMINE, xbmgmt=PLATFORM)
    return host


def only(search: CardSearch) -> Card:
    (card,) = search.cards
    return card


def sysfs(root: Path, functions: Dict[str, str]) -> None:
    for bdf, device in functions.items():
        (root / bdf).mkdir(parents=True)
        (root / bdf / "vendor").write_text("0x10ee\n")
        (root / bdf / "device").write_text(f"0x{device}\n")


def test_all_sources_agree(host: Host) -> None:
    search = host.cards()
    card = only(search)
    assert (card.slot, card.management_bdf, card.user_bdf) == (
        "0000:0b:00",
        "0000:0b:00.0",
        "0000:0b:00.1",
    )
    assert card.silicon is Silicon.PRODUCTION
    assert (card.management_driver, card.user_driver) == ("xclmgmt", "xocl")
    assert (card.shell, card.uuid, card.sc_version) == (SHELL, UUID, "4.4.35")
    assert card.installed_shells == (SHELL,)
    assert (card.xrt, card.ready) == ("2.14.354", True)
    assert search.versions.xclmgmt == "2.14.354"
    facts = ("silicon", "shell", "uuid", "sc_version", "xrt", "ready", "user_driver", "user_bdf")
    assert all(card.evidence[name] for name in facts)


def test_no_lspci(host: Host) -> None:
    (host.folder / "lspci").unlink()
    host.answers(xbutil="ERROR: no device", xbmgmt="ERROR: no device")
    sysfs(host.folder / "devices", {"0000:0b:00.0": "5044", "0000:0b:00.1": "5045"})
    search = host.cards()
    card = only(search)
    assert card.silicon is Silicon.ES1
    assert card.evidence["silicon"] == f"10ee:5045 in {host.folder / 'devices'}"
    assert card.ready is False
    assert "0000:0b:00.0 has no driver (xclmgmt), 0000:0b:00.1 has no driver" in card.notes[0]
    assert any("lspci" in note for note in search.notes)


def test_a_lspci_that_fails(host: Host) -> None:
    host.answers(lspci="ERROR: cannot open /proc/bus/pci")
    sysfs(host.folder / "devices", {"0000:0b:00.1": "5049"})
    card = only(host.cards())
    assert card.silicon is Silicon.PRODUCTION
    # xbmgmt knows the management function all the same.
    assert card.management_bdf == "0000:0b:00.0"


def test_no_xrt(host: Host) -> None:
    (host.folder / "xbutil").unlink()
    (host.folder / "xbmgmt").unlink()
    search = host.cards()
    card = only(search)
    assert (card.shell, card.xrt, card.ready) == ("", "", None)
    assert [note.split(" is ")[0] for note in search.notes] == [
        "The program xbutil",
        "The program xbmgmt",
    ]


def test_xbmgmt_wants_root(host: Host) -> None:
    host.answers(xbmgmt="ERROR: you must be root")
    search = host.cards()
    card = only(search)
    assert (card.shell, card.ready, card.sc_version) == (SHELL, True, "")
    assert any("sudo xbmgmt examine" in note for note in search.notes)


def test_a_card_that_is_not_ready(host: Host) -> None:
    host.answers(xbutil=EXAMINE.replace("  Yes", "  No"))
    card = only(host.cards())
    assert card.ready is False
    assert any("not ready" in note for note in card.notes)


def test_a_card_that_xbutil_does_not_list(host: Host) -> None:
    host.answers(xbutil="Devices present\n  0 devices found\n", xbmgmt="ERROR: no devices")
    card = only(host.cards())
    assert card.ready is False
    assert card.evidence["ready"] == "xbutil does not list it"


def test_the_factory_image(host: Host) -> None:
    golden = EXAMINE.replace(SHELL, "xilinx_vck5000").replace(UUID, "0x0").replace("  Yes", "")
    host.answers(xbutil=golden, xbmgmt="ERROR: no")
    card = only(host.cards())
    assert (card.shell, card.uuid, card.ready) == ("xilinx_vck5000", "", False)
    assert any("factory image" in note for note in card.notes)


def test_running_is_not_what_is_installed(host: Host) -> None:
    head, middle, tail = PLATFORM.partition("installed in system")
    host.answers(xbmgmt=head + middle + tail.replace("qdma_base_2", "qdma_base_3"))
    (note,) = only(host.cards()).notes
    assert note.startswith(f"{SHELL} runs, xilinx_vck5000_gen4x8_qdma_base_3 is installed")


def test_another_uuid_is_no_fault(host: Host) -> None:
    other = "A96ADB1F-78C8-BEAC-9173-81FEF01B08CD"
    host.answers(xbutil=EXAMINE.replace(UUID, other), xbmgmt=PLATFORM.replace(UUID, other))
    card = only(host.cards())
    assert (card.uuid, card.notes, card.ready) == (other, (), True)


def test_a_shell_for_the_other_silicon(host: Host) -> None:
    host.answers(lspci=LSPCI.replace("5048", "5044").replace("5049", "5045"))
    card = only(host.cards())
    assert card.silicon is Silicon.ES1
    assert card.notes == (f"the shell {SHELL} is not for es1 silicon",)


def test_a_card_off_the_bus(host: Host) -> None:
    host.answers(lspci=LSPCI.replace("[10ee:5049]", "[10ee:5049] (rev ff)"))
    card = only(host.cards())
    assert card.ready is False
    assert card.notes == ("0000:0b:00.1 has fallen off the bus: cold restart",)


def test_one_driver_is_missing(host: Host) -> None:
    host.answers(lspci=LSPCI.replace("\tKernel driver in use: xclmgmt\n", ""))
    (note,) = only(host.cards()).notes
    assert note.startswith("0000:0b:00.0 has no driver (xclmgmt): ")
    assert "dkms status" in note


def test_neighbours_are_named_and_not_taken(host: Host) -> None:
    host.answers(
        lspci="0000:5e:00.0 1200: 10ee:5094\n\n0000:5e:00.1 1200: 10ee:5095\n",
        xbutil="Devices present\n  [0000:5e:00.1] : xilinx_v70_gen5x8_qdma_base_2 user(inst=1)\n",
    )
    search = host.cards()
    assert search.cards == ()
    assert [(f.bdf, f.other_card) for f in search.others] == [
        ("0000:5e:00.0", "a V70"),
        ("0000:5e:00.1", "a V70"),
    ]
    with pytest.raises(DeviceError, match="no VCK5000") as caught:
        search.card()
    assert "0000:5e:00.0 is a V70 (10ee:5094)" in caught.value.evidence


def test_only_xbutil_sees_the_card(host: Host) -> None:
    """A container without lspci and without the kernel's list."""
    (host.folder / "lspci").unlink()
    card = only(host.cards())
    assert card.silicon is Silicon.PRODUCTION
    assert card.evidence["silicon"] == "`xbutil examine`"
    assert (card.user_bdf, card.ready, card.notes) == ("0000:0b:00.1", True, ())


def test_a_hung_xbutil_is_asked_once(host: Host) -> None:
    put_program(host.folder, "xbutil", f"echo x >> {host.folder}/calls; sleep 600")
    search = find_cards(timeout=0.5, sysfs=host.folder / "devices")
    assert (host.folder / "calls").read_text() == "x\n"
    assert any("was killed" in note for note in search.notes)
    # What xbmgmt tells is there all the same.
    assert only(search).shell == SHELL


def test_which_card_is_meant() -> None:
    one = Card("0000:0b:00", user_bdf="0000:0b:00.1")
    two = Card("0000:5e:00", user_bdf="0000:5e:00.1")
    assert CardSearch((one,)).card() is one
    assert CardSearch((one, two)).card("5e:00.0") is two
    with pytest.raises(DeviceError, match="2 cards and none was named"):
        CardSearch((one, two)).card()
    with pytest.raises(DeviceError, match="no VCK5000 at 86:00"):
        CardSearch((one,)).card("86:00.1")
    with pytest.raises(DeviceError, match="no VCK5000 in this host"):
        CardSearch((), (PciFunction("0000:01:00.0", "5000"),)).card()


def test_a_listed_card_that_does_not_answer(host: Host) -> None:
    """XRT 2.12 lists a card in its old form even when nothing can be read from it."""
    (host.folder / "old.txt").write_text(
        f"XRT\n  Version : 2.12.427\n\nDevices present\n  [0000:0b:00.1] : {SHELL} user(inst=128)\n"
    )
    put_program(
        host.folder,
        "xbutil",
        f'[ "$2" = -d ] && {{ echo "ERROR: timed out" >&2; exit 1; }}; cat {host.folder}/old.txt',
    )
    card = only(host.cards())
    assert card.ready is False
    assert card.notes == ("it does not answer: ERROR: timed out",)


def test_drivers_of_another_version(host: Host) -> None:
    host.answers(xbutil=EXAMINE.replace("XOCL                 : 2.14.354", "XOCL : 2.13.466"))
    assert host.cards().notes == ("XRT is 2.14.354, the host's drivers are not: xocl 2.13.466",)
    host.answers(xbutil=EXAMINE)
    assert host.cards().notes == ()
