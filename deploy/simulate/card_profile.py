"""What the simulated card and its host say of themselves: numbers, shell, versions, sensors.

The release of Vitis AI decides the host (XRT and the forms of its tools), the kind of card the
rest. Release 1.4.1 knew ES1 silicon only, so its card is one. The labels of the temperatures on
the gen4x8 shell were never seen; ours only follow that shell's way of naming.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

from ...board.releases import SHELLS, CardRelease, Shell, Silicon, known_releases
from .card_state import CardState
from .options import SimulateOptions, active_options

SLOT = "0000:0b:00"
"""PCI address of the card, without the function."""

BOARD_WATTS = 225.0

_UUIDS = {
    "xilinx_vck5000_gen3x16_xdma_base_1": "96E93BAB-A74E-D333-EE00-F559D71933A2",
    "xilinx_vck5000_gen4x8_qdma_base_2": "05DCA096-76CB-730B-8D19-EC1192FBAE3F",
}
ES1_ID = "0xb376430f2629b15d"
_IDLE_WATTS, _WATTS_PER_DEGREE, _IDLE_CELSIUS = 25.839361, 3.0, 33.0
_AUX_PART = 0.7


@dataclass(frozen=True)
class SimulatedRail:
    """One supply rail; ``None`` for what is not measured."""

    name: str
    label: str
    volts: Optional[float]
    amps: Optional[float]


@dataclass(frozen=True)
class CardProfile:
    """The card and its host at this moment.

    Attributes:
        present: on the bus.
        bound: the drivers hold it.
        dead: it has left the bus after it was found.
        silicon, shell: of the card.
        host: the release whose XRT is installed.
        celsius: of the FPGA.
        watts: of the board; ``None`` where the controller does not tell.
    """

    present: bool
    bound: bool
    dead: bool
    silicon: Silicon
    shell: Shell
    host: CardRelease
    celsius: float
    watts: Optional[float]

    @property
    def listed(self) -> bool:
        """Whether XRT sees the card."""
        return self.present and self.bound

    @property
    def user_bdf(self) -> str:
        """Function 1, which xbutil wants."""
        return f"{SLOT}.1"

    @property
    def management_bdf(self) -> str:
        """Function 0, which xbmgmt wants."""
        return f"{SLOT}.0"

    @property
    def devices(self) -> Tuple[str, str]:
        """PCI device numbers of function 0 and 1."""
        return ("5044", "5045") if self.silicon is Silicon.ES1 else ("5048", "5049")

    @property
    def uuid(self) -> str:
        """Of the platform; the ES1 shell had only a short identifier."""
        return _UUIDS.get(self.shell.name, ES1_ID)

    @property
    def xrt(self) -> str:
        """Full version of XRT on the host."""
        return self.host.shell.xrt_build

    @property
    def legacy(self) -> bool:
        """Whether the host's tools take the commands of before ``examine``."""
        return self.host.xrt == "2.11"

    @property
    def data_driven(self) -> bool:
        """Whether sensors carry the controller's labels (gen4x8 shells)."""
        return "gen4x8" in self.shell.name

    @property
    def max_watts(self) -> Optional[float]:
        """What the tools call the maximum, ``None`` where power is not told."""
        return None if self.watts is None else BOARD_WATTS

    @property
    def power_warning(self) -> bool:
        """The controller's alarm."""
        return self.watts is not None and self.watts > BOARD_WATTS

    def temperatures(self) -> List[Tuple[str, str, Optional[float]]]:
        """Identifier, label and Celsius, ``None`` for an absent sensor."""
        fpga = None if self.dead else float(round(self.celsius))
        if self.data_driven:
            board = None if fpga is None else fpga - 6
            return [("PCB", "PCB", board), ("FPGA", "FPGA", fpga), ("VCCINT", "VCCINT", None)]
        front = None if fpga is None else max(22.0, fpga - 12)
        rear = None if fpga is None else max(24.0, fpga - 8)
        return [
            ("pcb_top_front", "PCB Top Front", front),
            ("pcb_top_rear", "PCB Top Rear", rear),
            ("pcb_bottom_front", "PCB Bottom Front", None),
            ("fpga0", "FPGA", fpga),
            ("int_vcc", "Int Vcc", None),
            ("fpga_hbm", "FPGA HBM", None),
        ]

    def rails(self) -> List[SimulatedRail]:
        """Supply rails, whose 12 V inputs carry the power."""
        watts = self.watts
        aux = None if watts is None else round(watts * _AUX_PART / 12.188, 3)
        slot = None if watts is None else round(watts * (1 - _AUX_PART) / 12.149, 3)
        core = None if watts is None else round(watts * 0.6 / 0.8, 0)
        rails = [
            SimulatedRail("12v_aux", "12 Volts Auxillary", 12.188, aux),
            SimulatedRail("12v_pex", "12 Volts PCI Express", 12.149, slot),
            SimulatedRail("3v3_pex", "3.3 Volts PCI Express", 3.279, None),
            SimulatedRail("3v3_aux", "3.3 Volts Auxillary", 3.327, None),
            SimulatedRail("vccint", "Internal FPGA Vcc", 0.803, core),
            SimulatedRail("5v5_system", "5.5 Volts System", 5.011, None),
            SimulatedRail("vcc1v2_i", "Vcc 1.2 Volts i", None, 2.2),
            SimulatedRail("vccaux", "Vcc Auxillary", 1.508, None),
        ]
        if not self.data_driven:
            return rails
        labels: Dict[str, str] = {
            "12v_aux": "12V AUX",
            "12v_pex": "12V PEX",
            "3v3_pex": "3V3 PEX",
            "vccint": "VCCINT",
            "5v5_system": "5V5 SYS",
        }
        return [
            SimulatedRail(labels[rail.name], labels[rail.name], rail.volts, rail.amps)
            for rail in rails
            if rail.name in labels
        ]


def current_profile(options: Optional[SimulateOptions] = None) -> CardProfile:
    """The card as it is now.

    Args:
        options: of the host; those in force if not given.
    """
    options = active_options() if options is None else options
    host = {release.name: release for release in known_releases()}.get(
        options.release, known_releases()[-1]
    )
    es1 = options.card == "es1" or host.silicon is Silicon.ES1
    state = CardState(options.state, options)
    celsius = state.celsius()
    watts = _IDLE_WATTS + _WATTS_PER_DEGREE * max(0.0, celsius - _IDLE_CELSIUS)
    return CardProfile(
        present=options.card != "absent",
        bound=options.card != "unbound",
        dead=state.dead,
        silicon=Silicon.ES1 if es1 else Silicon.PRODUCTION,
        shell=SHELLS[0] if es1 else host.shell,
        host=host,
        celsius=celsius,
        watts=None if options.card == "no-power" or state.dead else watts,
    )
