"""The drop-in xbutil, xbmgmt and lspci: our readers understand every card and release of them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import ModuleType
from typing import Callable, Iterator, List, Tuple

import pytest

from deepfake_fpga.board.cards import find_cards
from deepfake_fpga.board.examine import parse_dump, parse_examine
from deepfake_fpga.board.examine_text import (
    parse_devices,
    parse_management,
    parse_sensor_text,
    parse_versions,
)
from deepfake_fpga.board.health import read_health
from deepfake_fpga.board.lspci import ARGUMENTS, parse_lspci
from deepfake_fpga.board.releases import Silicon, known_releases, problems, releases_for
from deepfake_fpga.board.validation import TestState, parse_validation, run_validation
from deepfake_fpga.board.vendor import State, find_program
from deepfake_fpga.deploy.simulate.card_state import HOT_CELSIUS, CardState, forget
from deepfake_fpga.deploy.simulate.host import SimulatedHost
from deepfake_fpga.deploy.simulate.options import CARDS, VARIABLE, SimulateOptions
from deepfake_fpga.deploy.simulate.programs import lspci, xbmgmt, xbutil
from deepfake_fpga.errors import DeviceError

RELEASES = ("1.4.1", "2.0", "2.5", "3.0")
NEW = ("2.0", "2.5", "3.0")
SHELLS = {release.name: release.shell.name for release in known_releases()}
USER, MANAGEMENT = "0000:0b:00.1", "0000:0b:00.0"

Call = Callable[..., Tuple[int, str, str]]


class Simulation:
    """The programs run in this process, on a host whose options a test sets."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
    ) -> None:
        self._monkeypatch, self._capsys, self.folder = monkeypatch, capsys, folder

    def host(self, release: str = "3.0", card: str = "production", **more: object) -> CardState:
        options = SimulateOptions(release=release, card=card, state=str(self.folder), **more)  # type: ignore[arg-type]
        for name, value in options.to_environment().items():
            self._monkeypatch.setenv(name, value)
        return CardState(str(self.folder), options)

    def __call__(self, program: ModuleType, *words: str) -> Tuple[int, str, str]:
        status = program.main(list(words))
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err


@pytest.fixture
def simulation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Simulation]:
    forget()
    yield Simulation(monkeypatch, capsys, tmp_path / "state")
    forget()


def silicon(release: str, card: str) -> Silicon:
    return Silicon.ES1 if card == "es1" or release == "1.4.1" else Silicon.PRODUCTION


@pytest.mark.parametrize("words", [ARGUMENTS, ["-vd", "10ee:"], ["-n", "-d", "10ee:"], ["-k"]])
@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("release", ["1.4.1", "3.0"])
def test_lspci(simulation: Simulation, release: str, card: str, words: List[str]) -> None:
    simulation.host(release, card)
    status, out, _ = simulation(lspci, *words)
    assert status == 0
    functions = parse_lspci(out)
    if card == "absent":
        assert functions == ()
        return
    assert [f.bdf for f in functions] == [MANAGEMENT, USER]
    assert {f.silicon for f in functions} == {silicon(release, card)}
    tells_drivers = "-v" in " ".join(words) or "-k" in words
    bound = card != "unbound" and tells_drivers
    assert [f.driver for f in functions] == (["xclmgmt", "xocl"] if bound else ["", ""])


def test_lspci_has_the_recorded_lines(simulation: Simulation, shared: Path) -> None:
    """But for the memory addresses and the slot, which differ from host to host."""
    simulation.host()
    _, out, _ = simulation(lspci, "-vd", "10ee:")
    sample = (shared / "samples" / "prod_gen3x16_lspci_xbmgmt_xbutil.txt").read_text()
    recorded = sample.partition("10ee:\n")[2].partition("$ sudo xbmgmt")[0]
    assert out.split() == recorded.split()


def test_lspci_of_a_dead_card(simulation: Simulation) -> None:
    simulation.host().mark_dead()
    functions = parse_lspci(simulation(lspci, *ARGUMENTS)[1])
    assert [f.off_the_bus for f in functions] == [True, True]


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("release", NEW)
def test_examine_lists_the_card(simulation: Simulation, release: str, card: str) -> None:
    simulation.host(release, card)
    status, out, _ = simulation(xbutil, "examine")
    assert status == 0
    assert (
        parse_versions(out).xrt
        == {"2.0": "2.12.427", "2.5": "2.12.427", "3.0": "2.14.354"}[release]
    )
    devices = parse_devices(out)
    if card in ("absent", "unbound"):
        assert devices == ()
        return
    (device,) = devices
    assert (device.bdf, device.management) == (USER, False)
    assert device.shell == (SHELLS["1.4.1"] if card == "es1" else SHELLS[release])
    assert device.ready is (True if release == "3.0" else None)


@pytest.mark.parametrize("card", ["production", "es1", "no-power"])
@pytest.mark.parametrize("release", NEW)
def test_examine_json_and_text_agree(
    simulation: Simulation, tmp_path: Path, release: str, card: str
) -> None:
    state = simulation.host(release, card)
    file = tmp_path / "report.json"
    words = ["-d", USER, "-r", "thermal", "electrical", "platform", "-f", "JSON", "-o", str(file)]
    status, out, _ = simulation(xbutil, "examine", *words)
    assert status == 0
    assert f"Successfully wrote the JSON file: {file}" in out
    (report,) = parse_examine(json.loads(file.read_text()))
    (text,) = parse_sensor_text(out)
    assert report.bdf == text.bdf == USER
    assert report.platform.shell == text.platform.shell
    fpga = [s for s in report.sensors if "fpga" in s.name.lower() and s.celsius is not None]
    assert [s.celsius for s in fpga] == [round(state.celsius())]
    assert {s.label: s.celsius for s in text.sensors} == {
        s.label: s.celsius for s in report.sensors if s.celsius is not None
    }
    assert text.power_watts == report.power_watts
    assert (report.power_watts is None) is (card == "no-power")
    assert text.power_warning is report.power_warning is False
    assert {r.label: (r.volts, r.amps) for r in text.rails} == {
        r.label: (r.volts, r.amps) for r in report.rails
    }


def scalars(content: object) -> Iterator[object]:
    if isinstance(content, dict):
        for value in content.values():
            yield from scalars(value)
    elif isinstance(content, list):
        for value in content:
            yield from scalars(value)
    else:
        yield content


@pytest.mark.parametrize("release", NEW)
def test_json_has_the_recorded_shape(
    simulation: Simulation, tmp_path: Path, shared: Path, release: str
) -> None:
    """Every scalar is text; the keys are those of the sample."""
    simulation.host(release)
    file = tmp_path / "r.json"
    simulation(xbutil, "examine", "-r", "all", "-f", "JSON", "-o", str(file))
    content = json.loads(file.read_text())
    assert all(isinstance(value, str) for value in scalars(content))
    (device,) = content["devices"]
    sample = json.loads(
        (shared / "samples" / "SYNTHETIC_xbutil_examine_vck5000_gen3x16.json").read_text()
    )
    (recorded,) = sample["devices"]
    assert set(device) == set(recorded)
    assert set(device["thermals"][0]) == set(recorded["thermals"][0])
    assert set(device["electrical"]) == set(recorded["electrical"])
    assert set(device["platforms"][0]) == set(recorded["platforms"][0])
    rail = device["electrical"]["power_rails"][0]
    if release == "3.0":
        assert rail["id"] == rail["description"]  # the controller's label
        assert set(rail["voltage"]) == {"volts", "max", "average", "is_present"}
        assert set(rail) == {"id", "description", "voltage", "current", "power"}
    else:
        assert set(rail) == set(recorded["electrical"]["power_rails"][0])
        assert [t["location_id"] for t in device["thermals"]] == [
            t["location_id"] for t in recorded["thermals"]
        ]
        assert [t["is_present"] for t in device["thermals"]] == [
            t["is_present"] for t in recorded["thermals"]
        ]


def squeezed(text: str) -> List[str]:
    """The lines without what documents lose: indentation and column widths."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def labels(lines: List[str]) -> List[str]:
    return [line.partition(" :")[0] for line in lines]


def test_sensor_text_has_the_recorded_labels(simulation: Simulation, shared: Path) -> None:
    simulation.host("2.5")
    out = simulation(xbutil, "examine", "-d", USER, "-r", "thermal", "electrical")[1]
    sample = (shared / "samples" / "xbutil_examine_thermal_electrical_gen3x16_doc.txt").read_text()
    own, recorded = labels(squeezed(out)), labels(squeezed(sample))
    assert len(own) > 15
    assert [label for label in own if "[0000:" not in label and label not in recorded] == []


def test_the_device_table_is_as_recorded(simulation: Simulation, shared: Path) -> None:
    sample = squeezed((shared / "samples" / "xbutil_devices_present.txt").read_text())
    simulation.host("3.0")
    new = squeezed(simulation(xbutil, "examine")[1])
    header = next(line for line in sample if line.endswith("Device Ready*"))
    assert header in new
    assert sample[sample.index(header) + 2] in new  # the remark with the star
    simulation.host("2.5", "es1")
    (old,) = [line for line in squeezed(simulation(xbutil, "examine")[1]) if "[0000" in line]
    recorded = next(line for line in sample if "es1" in line)
    # Bus number and instance are another host's, and it is the management's view there.
    assert old.replace("0b:00.1", "01:00.0").replace("user(inst=128)", "mgmt(inst=...)") == recorded


def test_the_legacy_texts_are_as_recorded(simulation: Simulation, shared: Path) -> None:
    simulation.host("1.4.1")
    sample = (shared / "samples" / "xbmgmt_flash_scan_legacy_es1.txt").read_text()
    own = [
        line.replace("0b:00.0", "02:00.0")
        for line in squeezed(simulation(xbmgmt, "flash", "--scan")[1])
    ]
    assert own == squeezed(sample)[3:-1]  # without source, note and quotes
    validate = squeezed(simulation(xbutil, "validate")[1])
    recorded = squeezed((shared / "samples" / "xbutil_validate_legacy_es1.txt").read_text())
    states = [line for line in validate if line.startswith("INFO: ==")]
    assert len(states) == 16
    assert [line for line in states if line not in recorded] == []


def test_power_that_is_not_told(simulation: Simulation, tmp_path: Path) -> None:
    for release, word in (("2.5", "N/A"), ("3.0", "NA")):
        simulation.host(release, "no-power")
        file = tmp_path / f"{release}.json"
        simulation(xbutil, "examine", "-r", "electrical", "-f", "JSON", "-o", str(file))
        electrical = json.loads(file.read_text())["devices"][0]["electrical"]
        assert electrical["power_consumption_watts"] == word


def test_a_file_is_not_overwritten_unasked(simulation: Simulation, tmp_path: Path) -> None:
    simulation.host()
    file = tmp_path / "r.json"
    file.write_text("mine")
    words = ["examine", "-r", "thermal", "-f", "JSON", "-o", str(file)]
    status, _, err = simulation(xbutil, *words)
    assert status == 1
    assert "already exists" in err
    assert file.read_text() == "mine"
    assert simulation(xbutil, *words, "--force")[0] == 0
    assert parse_examine(json.loads(file.read_text()))


@pytest.mark.parametrize(
    ("program", "words", "said"),
    [
        (xbutil, ["examine", "--nonsense"], "Unrecognized"),
        (xbutil, ["examine", "stray"], "Unrecognized"),
        (xbutil, ["examine", "-r", "nonsense"], "No report generator"),
        (xbutil, ["examine", "-d"], "argument for option '-d' is missing"),
        (xbutil, ["examine", "-d", MANAGEMENT], "management function"),
        (xbutil, ["examine", "-d", "0000:99:00.1"], "not found"),
        (xbutil, ["examine", "-f", "JSON"], "needs an output file"),
        (xbutil, ["examine", "-f", "XML", "-o", "x"], "Unknown output format"),
        (xbutil, ["validate", "-r", "nonsense"], "No test found"),
        (xbutil, ["nonsense"], "Unknown command"),
        (xbutil, ["scan"], "Unknown command"),
        (xbutil, ["--legacy", "scan"], "Unknown command"),
        (xbutil, ["reset"], "--device"),
        (xbutil, ["program", "-d", USER], "No xclbin"),
        (xbutil, ["program", "-d", USER, "-u", "/none.xclbin"], "Unable to open"),
        (xbmgmt, ["examine", "-d", USER], "user function"),
        (xbmgmt, ["examine", "-r", "thermal"], "No report generator"),
        (xbmgmt, ["nonsense"], "Unknown command"),
        (xbmgmt, ["program", "--base"], "--device"),
        (lspci, ["-z"], "Usage"),
    ],
)
def test_wrong_words_fail(
    simulation: Simulation, program: ModuleType, words: List[str], said: str
) -> None:
    simulation.host("3.0")
    status, out, err = simulation(program, *words)
    assert status == 1
    assert said in err
    assert out == ""


@pytest.mark.parametrize("card", ["absent", "unbound"])
@pytest.mark.parametrize("release", RELEASES)
def test_no_card_is_a_failure_for_what_needs_one(
    simulation: Simulation, release: str, card: str
) -> None:
    simulation.host(release, card)
    legacy = release == "1.4.1"
    for words in (["dump"], ["query"]) if legacy else (["examine", "-r", "thermal"],):
        assert simulation(xbutil, *words)[0] == 1
    status, out, _ = simulation(xbutil, "validate")
    assert status == 1
    assert not parse_validation(out).passed


@pytest.mark.parametrize("release", RELEASES)
def test_validate_passes(simulation: Simulation, release: str) -> None:
    simulation.host(release)
    status, out, _ = simulation(xbutil, "validate")
    assert status == 0
    found = parse_validation(out)
    assert found.passed
    assert found.shell == SHELLS[release]
    assert {t.state for t in found.tests} <= {TestState.PASSED, TestState.SKIPPED}
    assert sum(t.state is TestState.PASSED for t in found.tests) == 6


@pytest.mark.parametrize("release", RELEASES)
def test_validate_on_a_dead_card(simulation: Simulation, release: str) -> None:
    simulation.host(release).mark_dead()
    status, out, _ = simulation(xbutil, "validate")
    assert status == 1
    found = parse_validation(out)
    assert TestState.FAILED in {t.state for t in found.tests}
    assert not found.passed


def test_validate_has_the_recorded_lines(simulation: Simulation, shared: Path) -> None:
    simulation.host("2.5")
    _, out, _ = simulation(xbutil, "validate", "-d", USER)
    sample = (shared / "samples" / "prod_gen3x16_lspci_xbmgmt_xbutil.txt").read_text()
    recorded = sample[sample.index("Starting validation") :].splitlines()
    own = out.splitlines()[: len(recorded)]
    # The platform's identifier differs from host to host.
    assert [line for line in own if "Platform ID" not in line] == [
        line for line in recorded if "Platform ID" not in line
    ]


def test_validate_quick_and_verbose(simulation: Simulation) -> None:
    simulation.host("3.0")
    quick = parse_validation(simulation(xbutil, "validate", "-d", USER, "-r", "quick")[1])
    assert [t.name for t in quick.tests] == ["aux-connection", "pcie-link", "sc-version"]
    out = simulation(xbutil, "validate", "--verbose")[1]
    assert out.startswith("Verbose: Enabling Verbosity\n")
    assert "Description" in out
    assert parse_validation(out).passed


@pytest.mark.parametrize("card", ["production", "no-power"])
def test_the_legacy_tool(simulation: Simulation, card: str) -> None:
    state = simulation.host("1.4.1", card)
    assert simulation(xbutil, "examine")[0] == 1
    (device,) = parse_devices(simulation(xbutil, "scan")[1])
    assert (device.bdf, device.shell) == (USER, SHELLS["1.4.1"])
    assert parse_versions(simulation(xbutil, "version")[1]).xrt == "2.11.648"
    report = parse_dump(json.loads(simulation(xbutil, "dump", "-d", "0")[1]))
    celsius = {s.name: s.celsius for s in report.sensors}
    assert celsius["fpga_temp"] == round(state.celsius())
    assert celsius["pcb_btm_front"] is None
    assert (report.power_watts is None) is (card == "no-power")
    rails = {r.name: r for r in report.rails}
    assert rails["12v_aux"].volts == pytest.approx(12.188)
    assert "FPGA TEMP" in simulation(xbutil, "query")[1]
    # The next generation's words are there on request.
    assert parse_devices(simulation(xbutil, "--new", "examine")[1])


@pytest.mark.parametrize("release", ["2.0", "2.5"])
def test_the_legacy_words_of_2_12(simulation: Simulation, release: str) -> None:
    simulation.host(release)
    (device,) = parse_devices(simulation(xbutil, "--legacy", "scan")[1])
    assert device.shell == SHELLS[release]


@pytest.mark.parametrize("release", RELEASES)
def test_management(simulation: Simulation, release: str) -> None:
    simulation.host(release)
    words = ["flash", "--scan"] if release == "1.4.1" else ["examine", "-d", MANAGEMENT]
    status, out, _ = simulation(xbmgmt, *words)
    assert status == 0
    (report,) = parse_management(out)
    assert report.bdf == MANAGEMENT
    assert report.running is not None
    assert report.running.shell == SHELLS[release]
    assert [p.shell for p in report.installed] == [SHELLS[release]]
    assert report.flash_type == ("ospi_xgq" if release == "3.0" else "ospi_versal")
    assert report.card_type == ("vck5000-es1" if release == "1.4.1" else "vck5000")


def test_management_has_the_recorded_lines(simulation: Simulation, shared: Path) -> None:
    simulation.host("2.5")
    _, out, _ = simulation(xbmgmt, "examine", "-d", MANAGEMENT)
    sample = (shared / "samples" / "prod_gen3x16_lspci_xbmgmt_xbutil.txt").read_text()
    recorded = sample.partition("-d 0000:0b:00.0\n")[2].partition("$ sudo xbutil")[0]

    def lines(text: str) -> List[str]:
        # Identifiers and serial numbers differ from card to card.
        text = "\n".join(line for line in text.splitlines() if "UUID" not in line)
        return [line for line in text.splitlines() if line.strip() and "Serial" not in line]

    assert lines(out) == lines(recorded)


def test_a_dead_card_is_not_ready(simulation: Simulation) -> None:
    simulation.host("1.4.1").mark_dead()
    (device,) = parse_devices(simulation(xbutil, "scan")[1])
    assert (device.bdf, device.ready) == (USER, False)
    simulation.host("3.0").mark_dead()
    (device,) = parse_devices(simulation(xbutil, "examine")[1])
    assert device.ready is False
    status, _, err = simulation(xbutil, "examine", "-d", USER, "-r", "thermal")
    assert status == 1
    assert "not ready" in err


def test_reset_brings_the_card_back(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = simulation.host("3.0", hot_after=0)
    state.mark_dead()
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert simulation(xbutil, "reset", "-d", USER)[0] == 1
    assert state.dead
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert simulation(xbutil, "reset", "-d", USER)[0] == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("Y\n"))
    assert simulation(xbutil, "reset", "-d", USER)[0] == 0
    assert not state.dead
    state.mark_dead()
    assert simulation(xbutil, "reset", "-d", USER, "--force")[0] == 0
    assert not state.dead


def test_program_wants_an_xclbin(simulation: Simulation, tmp_path: Path) -> None:
    simulation.host("3.0")
    file = tmp_path / "dpu.xclbin"
    file.write_bytes(b"<!doctype html>")
    status, _, err = simulation(xbutil, "program", "-d", USER, "-u", str(file))
    assert (status, "is not an xclbin" in err) == (1, True)
    file.write_bytes(b"xclbin2\0rest")
    assert simulation(xbutil, "program", "-d", USER, "-u", str(file))[0] == 0


@pytest.mark.parametrize("program", [xbutil, xbmgmt])
@pytest.mark.parametrize("release", RELEASES)
def test_versions(simulation: Simulation, program: ModuleType, release: str) -> None:
    simulation.host(release)
    status, out, _ = simulation(program, "--version")
    assert status == 0
    wanted = {r.name: r.shell.xrt_build for r in known_releases()}[release]
    assert parse_versions(out).xrt == wanted


def test_the_temperature_is_the_cards(simulation: Simulation, tmp_path: Path) -> None:
    state = simulation.host("3.0", hot_after=2)
    for expected_hot in (False, False, True):
        file = tmp_path / f"{state.jobs}.json"
        simulation(xbutil, "examine", "-r", "thermal", "-f", "JSON", "-o", str(file))
        (report,) = parse_examine(json.loads(file.read_text()))
        celsius = next(s.celsius for s in report.sensors if s.name == "FPGA")
        assert celsius is not None
        assert (celsius >= HOT_CELSIUS) is expected_hot
        state.next_job()


# The same over real processes: programs on the PATH, our library in front of them.


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CardState]:
    def start(release: str = "3.0", card: str = "production", **more: object) -> CardState:
        options = SimulateOptions(release=release, card=card, **more)  # type: ignore[arg-type]
        host = SimulatedHost(options, tmp_path / "host")
        environment = host.environment()
        for name in ("PATH", "PYTHONPATH", VARIABLE):
            monkeypatch.setenv(name, environment[name])
        return CardState(host.options.state, host.options)

    return start


@pytest.mark.parametrize("release", ["1.4.1", "2.5", "3.0"])
def test_a_good_host_end_to_end(on_path: Callable[..., CardState], release: str) -> None:
    on_path(release)
    assert find_program("xbutil").state is State.SIMULATED
    (card,) = find_cards().cards
    assert (card.shell, card.ready, card.notes) == (SHELLS[release], True, ())
    assert release in [r.name for r in releases_for(card.installed)]
    assert read_health().warnings == ()


def test_the_wrong_release_end_to_end(on_path: Callable[..., CardState]) -> None:
    on_path("3.0", "es1")
    (card,) = find_cards().cards
    assert card.silicon is Silicon.ES1
    assert [p.what for p in problems(card.installed, known_releases()[-1])] == ["silicon"]


def test_a_hot_card_end_to_end(on_path: Callable[..., CardState]) -> None:
    state = on_path("2.5", hot_after=1)
    assert read_health().stops == ()
    state.next_job()
    health = read_health()
    assert health.celsius == HOT_CELSIUS
    assert len(health.stops) == 1


@pytest.mark.parametrize("release", ["1.4.1", "2.5", "3.0"])
def test_a_dead_card_end_to_end(on_path: Callable[..., CardState], release: str) -> None:
    on_path(release).mark_dead()
    (card,) = find_cards().cards
    assert card.ready is False
    assert any("fallen off the bus" in note for note in card.notes)
    with pytest.raises(DeviceError):
        read_health()
    assert not run_validation().passed
