"""The commands ``board info|health|validate|watch``: text, JSON, textfile and exit status."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import click
import pytest
from click.testing import CliRunner

from deepfake_fpga.board import cards as cards_module
from deepfake_fpga.board import health as health_module
from deepfake_fpga.board import validation as validation_module
from deepfake_fpga.board.cards import Card, CardSearch
from deepfake_fpga.board.examine import DeviceReport, Platform, Rail, Sensor
from deepfake_fpga.board.health import CardHealth, judge
from deepfake_fpga.board.lspci import PciFunction
from deepfake_fpga.board.releases import Silicon
from deepfake_fpga.board.validation import CardTest, TestState, Validation
from deepfake_fpga.deploy.board_metrics import check_textfile, metrics_text, write_textfile
from deepfake_fpga.deploy.board_watch import Highs, Reading, reading_line, reading_table, watch
from deepfake_fpga.deploy.commands.board import command
from deepfake_fpga.errors import DeviceError, MissingError, UsageError

SHELL = "xilinx_vck5000_gen4x8_qdma_base_2"
CARD = Card(
    "0000:0b:00",
    "0000:0b:00.0",
    "0000:0b:00.1",
    Silicon.PRODUCTION,
    SHELL,
    sc_version="4.4.35",
    xrt="2.14.354",
    management_driver="xclmgmt",
    user_driver="xocl",
    ready=True,
    evidence={"silicon": "10ee:5049 in lspci", "shell": "xbutil"},
)


def run(*words: str) -> Tuple[int, str]:
    """Status and standard output; errors of the toolkit are raised."""
    runner = CliRunner()
    result = runner.invoke(command, list(words), standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    status = result.return_value
    return (status if isinstance(status, int) else result.exit_code), result.output


def health(celsius: Optional[float] = 40.0, **values: Any) -> CardHealth:
    """A card's reading, judged as a real one."""
    report = DeviceReport(
        bdf=values.pop("bdf", "0000:0b:00.1"),
        sensors=(Sensor("fpga0", "FPGA", celsius), Sensor("int_vcc", "Int Vcc", None)),
        rails=(Rail("12v_aux", "12 Volts Auxillary", 12.188, 0.603), Rail("x", "X", None, None)),
        power_watts=values.pop("power_watts", 26.0),
        max_watts=225.0,
        power_warning=False,
        platform=Platform(SHELL),
        **values,
    )
    return judge(report, evidence="a test")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what the library finds."""

    def set_found(
        search: Optional[CardSearch] = None,
        healths: Sequence[CardHealth] = (),
        error: Optional[Exception] = None,
        validation: Optional[Validation] = None,
    ) -> None:
        def read(*_: object) -> Tuple[CardHealth, ...]:
            if error is not None:
                raise error
            return tuple(healths)

        monkeypatch.setattr(cards_module, "find_cards", lambda *_: search)
        monkeypatch.setattr(health_module, "read_all_health", read)
        monkeypatch.setattr(validation_module, "run_validation", lambda *_: validation)

    return set_found


def test_info_shows_each_fact_with_its_source(found: Callable[..., None]) -> None:
    found(CardSearch((CARD,)))
    status, out = run("info")
    assert status == 0
    assert "VCK5000 at 0000:0b:00, production silicon (10ee:5049 in lspci)" in out
    assert re.search(rf"shell +{SHELL} \(xbutil\)", out)
    assert re.search(r"user function +0000:0b:00.1, driver xocl", out)
    assert re.search(r"goes with Vitis AI +3\.0\n", out)


def test_info_without_a_card(found: Callable[..., None]) -> None:
    found(CardSearch((), (PciFunction("0000:5e:00.0", "5094"),), evidence="lspci"))
    with pytest.raises(DeviceError, match="no VCK5000") as caught:
        run("info")
    assert "a V70" in str(caught.value)
    assert caught.value.exit_status == 1
    status, out = run("info", "--json")
    assert status == 1
    assert json.loads(out)["cards"] == []


def test_info_for_a_release(found: Callable[..., None]) -> None:
    found(CardSearch((CARD,)))
    status, out = run("info", "--release", "3.0")
    assert status == 0
    assert "nothing speaks against Vitis AI 3.0" in out
    status, out = run("info", "--release", "2.5")
    assert status == 1
    assert "! for Vitis AI 2.5: shell is" in out
    status, out = run("info", "--release", "2.5", "--json")
    assert status == 1
    (record,) = json.loads(out)["cards"]
    assert record["silicon"] == "production"
    assert record["releases"] == ["3.0"]
    assert [p["what"] for p in record["problems"]] == ["shell", "XRT"]
    with pytest.raises(UsageError, match="does not support"):
        run("info", "--release", "3.5")


def test_info_of_one_of_two(found: Callable[..., None]) -> None:
    other = dataclasses.replace(CARD, slot="0000:5e:00", user_bdf="0000:5e:00.1")
    found(CardSearch((CARD, other)))
    assert run("info")[1].count("VCK5000 at") == 2
    assert "0000:0b" not in run("info", "--device", "5e:00.1")[1].splitlines()[0]
    with pytest.raises(DeviceError):
        run("info", "--device", "99:00.1")


def test_the_matrix_needs_no_card() -> None:
    status, out = run("info", "--releases")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        *("release", "1.4.1", "2.0", "2.5", "3.0")
    ]
    _, out = run("info", "--releases", "--json")
    records = json.loads(out)
    assert records[-1]["setups"][0]["argument"] == "DPUCVDX8H_8pe_normal"
    assert records[-1]["setups"][0]["xclbin"].endswith("_gen4x8_qdma_base_2.xclbin")


@pytest.mark.parametrize(
    ("celsius", "status", "verdict"),
    [
        (40.0, 0, "within all limits"),
        (86.0, 1, "over a warning limit"),
        (97.0, 1, "over a limit at which work stops"),
        (None, 0, "no limit passed, but the FPGA's temperature is not known"),
    ],
)
def test_health(
    found: Callable[..., None], celsius: Optional[float], status: int, verdict: str
) -> None:
    found(healths=[health(celsius)])
    got, out = run("health")
    assert got == status
    assert f"  {verdict} (a test)\n" in out
    assert re.search(r"Int Vcc +not read", out)
    assert re.search(r"board power +26\.0 W of 225", out)
    assert ("STOP: " in out) is (celsius == 97.0)
    got, out = run("health", "--json")
    assert got == status
    (record,) = json.loads(out)
    assert (record["celsius"], record["verdict"]) == (celsius, verdict)
    assert record["rails"][0]["amps"] == 0.603


def test_health_of_two_cards_fails_for_one(found: Callable[..., None]) -> None:
    found(healths=[health(40.0), health(90.0, bdf="0000:5e:00.1")])
    assert run("health")[0] == 1


def test_health_without_power(found: Callable[..., None]) -> None:
    found(healths=[health(power_watts=None, unread=("power is 'N/A'",))])
    status, out = run("health")
    assert status == 0
    assert re.search(r"board power +not read", out)
    assert "note: power is 'N/A'" in out


def test_validate(found: Callable[..., None]) -> None:
    tests = (
        CardTest("pcie-link", TestState.WARNED, warnings=("Gen 3x8",)),
        CardTest("dma", TestState.PASSED, details=("11160 MB/s",)),
        CardTest("p2p", TestState.SKIPPED),
    )
    found(validation=Validation(tests, SHELL, "4.4.35"))
    status, out = run("validate")
    assert status == 0
    assert out.endswith("passed: 1 passed, 1 passed with warnings, 1 skipped\n")
    assert "Gen 3x8" in out
    bad = Validation((*tests, CardTest("iops", TestState.FAILED, "FAILED")))
    found(validation=bad)
    status, out = run("validate")
    assert status == 1
    assert out.endswith("not passed: iops: FAILED\n")
    status, out = run("validate", "--json")
    assert status == 1
    record = json.loads(out)
    assert (record["passed"], record["reasons"]) == (False, ["iops: FAILED"])
    assert [t["state"] for t in record["tests"]] == [
        *("PASSED WITH WARNINGS", "PASSED", "SKIPPED", "FAILED")
    ]


def test_watch_logs_a_line_per_reading(found: Callable[..., None]) -> None:
    found(healths=[health(40.0)])
    status, out = run("watch", "--count", "2", "--interval", "0.1")
    assert status == 0
    assert len(out.splitlines()) == 2
    assert all("40 °C  26.0 W  within all limits" in line for line in out.splitlines())


def test_watch_goes_on_after_a_failure(found: Callable[..., None], tmp_path: Path) -> None:
    file = tmp_path / "card.prom"
    found(error=DeviceError("the card is gone", "silence"))
    words = ["watch", "--count", "2", "--interval", "0.1", "--json", "--prometheus", str(file)]
    status, out = run(*words)
    assert status == 1
    records = [json.loads(line) for line in out.splitlines()]
    assert [r["reading"] for r in records] == [1, 2]
    assert records[0]["error"] == "the card is gone. Seen: silence."
    assert "deepfake_fpga_card_up 0.0\n" in file.read_text()


def test_watch_refuses_a_name_the_exporter_would_not_read(
    found: Callable[..., None], tmp_path: Path
) -> None:
    found(healths=[health()])
    with pytest.raises(UsageError, match="The node exporter reads only"):
        run("watch", "--prometheus", str(tmp_path / "card.txt"))
    (tmp_path / "x.prom").mkdir()
    with pytest.raises(UsageError, match="a folder"):
        check_textfile(tmp_path / "x.prom")


@pytest.mark.parametrize("words", [["watch", "--interval", "0"], ["health", "--timeout", "0"]])
def test_numbers_out_of_range(words: List[str]) -> None:
    with pytest.raises(click.UsageError):
        run(*words)


def test_no_xbutil_is_wrong_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for words in (["health"], ["validate"], ["watch"]):
        with pytest.raises(MissingError) as caught:
            run(*words)
        assert caught.value.exit_status == 2


def test_watch_keeps_the_pace_and_the_worst() -> None:
    values = [health(40.0), health(90.0), health(50.0)]
    shown: List[Reading] = []
    pauses: List[float] = []
    well = watch(lambda: [values[len(shown)]], shown.append, 5.0, 3, sleep=pauses.append)
    assert not well
    assert len(pauses) == 2
    assert all(0 <= pause <= 5.0 for pause in pauses)
    highs = Highs()
    table = [reading_table(reading, highs) for reading in shown][-1]
    row = table.splitlines()[-1].split("  ")
    cells = [cell.strip() for cell in row if cell.strip()]
    assert cells == ["0000:0b:00.1", "50 °C", "90 °C", "26.0 W", "26.0 W", "within all limits"]


def test_a_slow_reading_is_followed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 9.0, 9.0, 10.0])
    monkeypatch.setattr("deepfake_fpga.deploy.board_watch.time.monotonic", lambda: next(clock))
    pauses: List[float] = []
    watch(lambda: [health()], lambda _: None, 5.0, 2, sleep=pauses.append)
    assert pauses == [0.0]


def test_a_failed_reading_is_shown() -> None:
    reading = Reading(1, 0.0, (), DeviceError("gone"))
    assert reading_table(reading, Highs()).splitlines()[1] == "not read: gone."
    assert reading_line(reading).endswith("not read: gone.")


def parse_metrics(text: str) -> Dict[str, float]:
    """The samples of a textfile by name and labels, read as its grammar says."""
    samples: Dict[str, float] = {}
    typed = set()
    for line in text.splitlines():
        if line.startswith("# "):
            _, kind, name, rest = line.split(" ", 3)
            assert kind in ("HELP", "TYPE")
            assert rest
            if kind == "TYPE":
                assert name not in typed
                assert rest == "gauge"
                typed.add(name)
            continue
        match = re.match(
            r'^([a-z_]+)((?:\{(?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)+\})?) (-?[0-9.e+]+)$', line
        )
        assert match, line
        assert match.group(1) in typed
        assert match.group(1) + match.group(2) not in samples
        samples[match.group(1) + match.group(2)] = float(match.group(3))
    assert text.endswith("\n")
    return samples


def test_the_textfile() -> None:
    samples = parse_metrics(metrics_text([health(97.0), health(40.0, bdf="0000:5e:00.1")], 12.5))
    prefix = "deepfake_fpga_card_"
    assert samples[f"{prefix}up"] == 1
    assert samples[f'{prefix}temperature_celsius{{bdf="0000:0b:00.1",sensor="fpga0"}}'] == 97
    assert samples[f'{prefix}temperature_celsius{{bdf="0000:5e:00.1",sensor="fpga0"}}'] == 40
    assert samples[f'{prefix}power_watts{{bdf="0000:0b:00.1"}}'] == 26
    assert samples[f'{prefix}rail_volts{{bdf="0000:0b:00.1",rail="12v_aux"}}'] == 12.188
    assert samples[f'{prefix}rail_amperes{{bdf="0000:0b:00.1",rail="12v_aux"}}'] == 0.603
    assert samples[f'{prefix}limits_passed{{bdf="0000:0b:00.1",severity="stop"}}'] == 1
    assert samples[f'{prefix}limits_passed{{bdf="0000:5e:00.1",severity="stop"}}'] == 0
    assert samples[f"{prefix}last_read_timestamp_seconds"] == 12.5
    # What was not read has no sample: a 0 would be a lie.
    assert not any("int_vcc" in name for name in samples)


def test_the_textfile_without_values() -> None:
    samples = parse_metrics(metrics_text([health(None, power_watts=None)], 1.0))
    assert not any("temperature" in name or "power_watts" in name for name in samples)
    samples = parse_metrics(metrics_text(None, 1.0))
    assert samples["deepfake_fpga_card_up"] == 0
    assert len(samples) == 2


def test_labels_are_escaped() -> None:
    reading = judge(DeviceReport(sensors=(Sensor('a"b\\c\nd', "x", 1.0),)))
    text = metrics_text([reading], 1.0)
    assert r'sensor="a\"b\\c\nd"' in text
    parse_metrics(text)


def test_the_textfile_is_replaced_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter reads all *.prom of the folder at any moment."""
    file = tmp_path / "card.prom"
    write_textfile(file, "old\n")
    seen: List[Tuple[List[str], str]] = []
    replace = os.replace

    def look(source: str, target: str) -> None:
        seen.append((sorted(f.name for f in tmp_path.glob("*.prom")), file.read_text()))
        seen.append((sorted(f.name for f in tmp_path.glob(".*.prom")), file.read_text()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    write_textfile(file, "new\n")
    monkeypatch.undo()
    assert seen
    assert all(names in (["card.prom"], []) and text == "old\n" for names, text in seen)
    assert file.read_text() == "new\n"
    assert [f.name for f in tmp_path.iterdir()] == ["card.prom"]
