"""The report of a test: its record against values known beforehand, and its page."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
import pytest
from click.testing import CliRunner

from deepfake_fpga.deploy import calibration_report
from deepfake_fpga.deploy.calibration_drawings import (
    histogram_svg,
    reliability_svg,
    rows_svg,
    scatter_svg,
)
from deepfake_fpga.deploy.calibration_page import write_calibration_page
from deepfake_fpga.deploy.calibration_report import advice, examine, number, write_report
from deepfake_fpga.deploy.timeline import RED

from .faces import write_dataset

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects text and tags and sees that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: List[str] = []
        self.tags: List[Tuple[str, Dict[str, Any]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(text: str) -> Page:
    page = Page()
    page.feed(text)
    assert page.open == []
    return page


def tensor(**given: Any) -> Any:
    """A measured tensor with some of its numbers replaced."""
    noise = pytest.importorskip("deepfake_fpga.quantize.layer_noise")
    made = noise.TensorNoise("Net::nndct_relu_2", "Net/A[a]/ReLU[1]", "relu", 4, ("Net::a.weight",))
    made.values, made.signal, made.own_signal = 1000, 100.0, 100.0
    made.noise = made.own_noise = 1000 * 2.0**-8 / 12  # that of rounding at position 4
    made.histogram[128 + 100] = 1000
    for name, value in given.items():
        setattr(made, name, value)
    return made


def weights(before: float = 2.0, after: float = 2.0) -> Any:
    noise = pytest.importorskip("deepfake_fpga.quantize.layer_noise")
    return noise.WeightRange("Net::a.weight", 7, 1.0, 1.0, before, after, 40.0)


def only(code: int) -> np.ndarray:
    histogram = np.zeros(256, np.int64)
    histogram[128 + code] = 1000
    return histogram


@pytest.mark.torch
@pytest.mark.parametrize(
    ("given", "ranges", "cause", "step"),
    [
        ({}, (2.0, 2.0), "eight bits for its results", "train with quantization"),
        ({"own_noise": 5.0}, (2.0, 2.0), "rounded weights", "--fast-finetune"),
        ({"clipped": 20}, (2.0, 2.0), "2.0% of its values are clipped", "pictures like these"),
        ({"histogram": only(31)}, (2.0, 2.0), "2 of 7 bits", "odd pictures"),
        ({}, (50.0, 50.0), "50 times its narrowest", "weight decay"),
        ({}, (4.0, 50.0), "50 times its narrowest", "without equalization"),
    ],
)
def test_advice_follows_the_symptom(
    given: Dict[str, Any], ranges: Tuple[float, float], cause: str, step: str
) -> None:
    why, steps = advice(tensor(**given), 0.0, [weights(*ranges)])
    assert cause in why
    assert any(step in each for each in steps)


@pytest.mark.torch
def test_clipping_that_calibration_knew_asks_for_larger_batches() -> None:
    _, steps = advice(tensor(clipped=20), 0.02, [weights()])
    assert any("-b" in step for step in steps)
    assert not any("pictures like these" in step for step in steps)


@pytest.mark.torch
def test_noise_of_rounding_alone_is_one() -> None:
    assert tensor().over_rounding == pytest.approx(1.0)
    assert tensor(own_noise=0.0).own_snr == math.inf


def verdicts(
    labels: Sequence[int], exact: Sequence[float], quantized: Sequence[float]
) -> Dict[str, Any]:
    evaluation = pytest.importorskip("deepfake_fpga.quantize.evaluation")
    return calibration_report.verdict_record(
        evaluation.Verdicts(
            tuple(f"{i}.png" for i in range(len(labels))),
            np.array(labels, np.int8),
            np.array(exact),
            np.array(quantized),
        )
    )


@pytest.mark.torch
def test_flips_and_the_threshold_refitted() -> None:
    """INT8 scores sank by 0.3: two fakes are missed, and between 0.2 and 0.3 all is told apart."""
    record = verdicts([1, 1, 0, 0, -1], [0.2, 0.1, 0.6, 0.7, 0.9], [0.1, 0.2, 0.3, 0.4, 0.8])
    assert [(f["picture"], f["label"], f["right"]) for f in record["flips"]] == [
        ("2.png", "FAKE", "float"),
        ("3.png", "FAKE", "float"),
    ]
    fit = record["threshold"]
    assert fit["int8"] == pytest.approx(0.25)
    assert fit["int8_balanced_accuracy"] == 1.0
    assert fit["int8_balanced_accuracy_at_half"] == 0.5
    assert fit["float"] == 0.5
    assert "balanced accuracy" in fit["criterion"]
    assert sum(count for count, _, _ in record["reliability"]["int8"]) == 4  # labelled ones only


@pytest.mark.torch
def test_a_flip_may_be_right_and_a_label_unknown() -> None:
    record = verdicts([1, -1], [0.6, 0.6], [0.4, 0.4])
    assert [flip["right"] for flip in record["flips"]] == ["int8", None]
    assert record["threshold"]["int8"] is None  # one label alone fits nothing
    json.dumps(record, allow_nan=False)


@pytest.mark.torch
def test_points_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_report, "POINTS", 10)
    record = verdicts([1] * 95, np.linspace(0, 1, 95), np.linspace(0, 1, 95))
    assert len(record["points"]) == 10
    assert record["points"][1] == [number(10 / 94), number(10 / 94), "REAL"]


def quant(*args: Any) -> Any:
    from deepfake_fpga.deploy.cli import cli

    return CliRunner().invoke(
        cli, ["quant", *map(str, args)], catch_exceptions=False, standalone_mode=False
    )


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build folder with a report, from a tiny network."""
    torch = pytest.importorskip("torch")
    from deepfake_fpga.quantize.model import UYNet

    folder = tmp_path_factory.mktemp("report")
    torch.manual_seed(5)
    torch.save(UYNet(width=2).state_dict(), str(folder / "m.pth"))
    data = write_dataset(folder / "faces<&>", videos=4, crops=2)
    common = ("--data", data, "-d", folder / "build", "-q")
    quant("--mode", "calib", "--checkpoint", folder / "m.pth", *common)
    with pytest.MonkeyPatch.context() as lean:
        lean.setattr(calibration_report, "TRIED_IMAGES", 4)
        lean.setattr(calibration_report, "TRIED_LAYERS", 3)
        quant("--mode", "test", *common)
    return folder / "build" / "quant_model"


@pytest.mark.torch
def test_the_report_of_a_test(tested: Path) -> None:
    import cv2

    record = json.loads((tested / "report.json").read_text())
    evaluation = json.loads((tested / "evaluation.json").read_text())
    manifest = json.loads((tested / "manifest.json").read_text())
    assert {"report.html", "report.json"} < {made["path"] for made in manifest["made"]}
    by_metric = {(row["head"], row["metric"]): row for row in record["heads"]}
    for (head, name), key in {
        ("mask", "Dice"): "dice",
        ("verdict", "log-loss"): "log_loss",
        ("verdict", "EER"): "eer",
    }.items():
        assert by_metric[head, name]["float"] == evaluation["float"][key]
        assert by_metric[head, name]["int8"] == evaluation["quantized"][key]
    assert record["layer_images"] == 8
    assert record["tried_images"] == 4
    assert record["tried_layers"] == len(record["damaging"]) == 3
    fixes = json.loads((tested / "quant_info.json").read_text())["output"]
    assert [layer["position"] for layer in record["layers"]] == [v[0][1] for v in fixes.values()]
    first = record["layers"][0]
    pictures = []
    for path in sorted((tested.parent.parent / "faces<&>" / "crops").iterdir()):
        pictures.append(cv2.resize(cv2.imread(str(path)), (224, 224)) / 255.0)
    exact = np.stack(pictures)
    scale = 2.0 ** first["position"]
    grid = np.clip(np.floor(exact * scale + 0.5), -128, 127) / scale
    by_hand = 10 * math.log10((exact**2).sum() / ((exact - grid) ** 2).sum())
    assert first["label"] == "input"
    assert first["snr_db"] == pytest.approx(by_hand, abs=0.01)
    assert first["own_snr_db"] == pytest.approx(by_hand, abs=0.01)
    assert sum(first["histogram"]) == exact.size
    assert len(record["weights"]) == 25
    gains = [max(row["gain_db"].values()) for row in record["damaging"]]
    assert gains == sorted(gains, reverse=True)
    assert all(set(row["gain_db"]) == {"mask", "verdict"} for row in record["damaging"])
    assert record["calibration"]["gate"]["overridden"] == []


@pytest.mark.torch
def test_the_page_is_whole_and_needs_nothing_else(tested: Path) -> None:
    text = (tested / "report.html").read_text(encoding="utf-8")
    page = parsed(text)
    for word in ("Most damaging layers", "calibration error (ECE)", "Every layer", "Criterion"):
        assert word in page.text
    record = json.loads((tested / "report.json").read_text())
    for layer in record["layers"]:
        assert layer["label"] in page.text
    assert "faces<&>" in page.text  # escaped in the file
    assert "faces<&>" not in text
    assert not [t for t, _ in page.tags if t in ("script", "link", "img", "iframe")]
    assert not re.search(r'(src|href)="http|url\(', text)
    drawn = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg"]
    assert drawn.count("histogram of codes") == len(record["layers"])


@pytest.mark.torch
def test_without_a_report_an_old_one_goes(tested: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(str(tested.parent), str(tmp_path / "build"))
    data = tested.parent.parent / "faces<&>"
    quant("--mode", "test", "--data", data, "-d", tmp_path / "build", "-q", "--no-report")
    left = {path.name for path in (tmp_path / "build" / "quant_model").iterdir()}
    assert "UYNet_int.xmodel" in left
    assert not left & {"report.html", "report.json"}


@pytest.mark.torch
def test_a_report_without_labels_and_without_layers(tmp_path: Path) -> None:
    from deepfake_fpga.preprocessing import Preprocessing
    from deepfake_fpga.quantize.dataset import Dataset
    from deepfake_fpga.quantize.evaluation import Agreement, Evaluation, Verdicts

    said = Verdicts(("a.png",), np.array([-1], np.int8), np.array([0.5]), np.array([0.4]))
    alike = Agreement(1, 1, ("a.png",), 0.9, 0.8, 0.1, 0.1)
    evaluation = Evaluation(None, None, 0, 0, alike, said, "it is a plain folder")
    data = Dataset(tmp_path, ())
    record = examine(evaluation, None, data, Preprocessing(), {}, lambda title, total: print)
    assert record["summary"]["kind"] == "bad"  # the only verdict flipped
    write_report(tmp_path, record, [("model", "<none>")])
    page = parsed((tmp_path / "report.html").read_text())
    assert "it is a plain folder" in page.text
    assert "not known" in page.text
    assert "<none>" in page.text
    assert "Every layer" not in page.text
    assert json.loads((tmp_path / "report.json").read_text())["heads"] == []


def circles(svg: str) -> List[Dict[str, Any]]:
    return [attrs for tag, attrs in parsed(svg).tags if tag == "circle"]


def test_the_scatter_rings_what_flips() -> None:
    found = circles(scatter_svg([(0.0, 0.0, "REAL"), (1.0, 1.0, "FAKE"), (0.6, 0.4, None)]))
    rings = [c for c in found if c.get("fill") == "none"]
    (ring,) = rings
    left, right = found[0], found[1]
    # The frame's corners are (0, 0) and (1, 1); the ring is at 60 % across and 40 % up.
    across = float(left["cx"]) + 0.6 * (float(right["cx"]) - float(left["cx"]))
    up = float(left["cy"]) + 0.4 * (float(right["cy"]) - float(left["cy"]))
    assert float(ring["cx"]) == pytest.approx(across, abs=0.1)
    assert float(ring["cy"]) == pytest.approx(up, abs=0.1)


def test_rows_stand_in_proportion() -> None:
    marks = circles(rows_svg(["a", "b<"], [(10.0, 20.0), (None, 15.0)], "dB"))
    at = [float(mark["cx"]) for mark in marks]
    assert len(at) == 3
    assert at[2] == pytest.approx((at[0] + at[1]) / 2, abs=0.1)
    assert "1/4" in rows_svg(["w"], [(-2.0, 1.0)], "", powers=True)
    parsed(rows_svg([], [], "dB"))
    parsed(rows_svg(["exact"], [(None, None)], "dB"))


def test_histograms_are_logarithmic_and_show_clipping() -> None:
    counts = [0] * 256
    counts[128], counts[255] = 999999, 999
    heights = [float(h) for h in re.findall(r"v-([\d.]+)h1", histogram_svg(counts, clipped=True))]
    assert heights == [25.0, pytest.approx(12.5, abs=0.1)]  # 10^6 and 10^3
    assert RED in histogram_svg(counts, clipped=True)
    assert RED not in histogram_svg(counts, clipped=False)
    parsed(histogram_svg([0] * 256, clipped=False))


def test_reliability_draws_what_has_pictures() -> None:
    table = [[0, None, None]] * 9 + [[4, 0.95, 0.5]]
    svg = reliability_svg({"float": table, "int8": table})
    assert len(circles(svg)) == 4  # one per model and one per legend entry


def test_nothing_is_written_where_the_page_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_calibration_page(tmp_path / "report.html", {"summary": {}}, [])
    assert list(tmp_path.iterdir()) == []
