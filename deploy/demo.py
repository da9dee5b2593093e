"""The whole chain once, on data made for it: what ``scripts/demo`` shows.

Synthetic faces are drawn, the shipped checkpoint is calibrated and tested on them, compiled, and
a generated clip is checked on the simulated card. The clip's truth is known, so the report can
set what was found beside what was done.
"""

from __future__ import annotations

import importlib.util
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ..errors import UnsupportedError
from ..files import replacing, write_json
from .build_folder import BuildFolder, Manifest
from .defaults import DEMO_CHECKPOINT
from .quantization import Progress, QuantRequest, silent

MANIPULATED = ((1.0, 3.0), (4.0, 6.5))
"""Seconds of the demo clip in which the face is manipulated."""
CLIP_SECONDS = 7.0
FACES = (("calibration", 26, 4, "train"), ("test", 24, 2, "test"))
"""Folder, videos, crops of each, and the split whose identities they show."""
NOTE = (
    "This is a demonstration on generated faces with a model trained on such faces. It shows that "
    "the chain works and what its numbers are; it says nothing about any real video."
)


@dataclass
class Demo:
    """What the demonstration did and where it left it.

    Attributes:
        folder: everything written is in it.
        steps: ``(stage, result in words, seconds)``.
        overlay: the overlay video.
        picture: the contact sheet, PNG.
        report: the HTML page.
        summary: ``summary.json`` of the run.
        agreement: share of the clip's frames whose verdict is what was done to them.
    """

    folder: Path
    steps: List[Tuple[str, str, float]] = field(default_factory=list)
    overlay: Path = Path()
    picture: Path = Path()
    report: Path = Path()
    summary: Dict[str, Any] = field(default_factory=dict)
    agreement: float = 0.0

    def to_json(self) -> Dict[str, Any]:
        """A JSON object with the steps, the paths, the agreement and the run's summary."""
        return {
            "steps": [{"stage": s, "result": r, "seconds": round(t, 3)} for s, r, t in self.steps],
            "overlay": str(self.overlay),
            "picture": str(self.picture),
            "report": str(self.report),
            "frame_agreement": self.agreement,
            "summary": self.summary,
        }


def run_demo(
    folder: Path,
    device: str = "auto",
    threads: Optional[int] = None,
    say: Callable[[str], None] = lambda text: None,
    progress: Progress = silent,
) -> Demo:
    """Calibrates, tests, compiles and runs, and writes the report.

    Args:
        folder: made if it is not there; files of an earlier demo in it are replaced.
        device: as ``run --device``.
        threads: as ``run --threads``.
        say: told what each step chose and found.
        progress: opens a progress bar.

    Raises:
        UnsupportedError: a package that it needs is missing.
        ToolkitError: a stage failed; what the earlier ones made stays.
    """
    _require("torch", "av")
    demo = Demo(folder)
    build = BuildFolder(folder / "build")
    data = folder / "data"
    step = _Steps(demo, say)

    with step("draw faces") as done:
        done(draw_faces(data, progress))
    with step("quant --mode calib") as done:
        request = QuantRequest(build, data / "calibration", checkpoint=DEMO_CHECKPOINT)
        done(_calibrate(request, say, progress))
    with step("quant --mode test") as done:
        request = QuantRequest(build, data / "test", report=False)
        done(_test(request, say, progress))
    with step("compile") as done:
        done(_compile(build, say))
    with step("make the clip") as done:
        clip, truth = _clip(folder / "clip.mp4", progress)
        done(f"{len(truth)} frames with sound, {sum(truth)} of them manipulated")
    with step("run --video") as done:
        demo.summary, text = _run(build, clip, folder / "result", device, threads, say, progress)
        done(text)
    with step("report") as done:
        _report(demo, folder, truth)
        done(f"{100 * demo.agreement:.1f} % of the clip's frames judged as they were made")
    write_json(folder / "demo.json", demo.to_json())
    return demo


class _Steps:
    """Times a step and records its result."""

    def __init__(self, demo: Demo, say: Callable[[str], None]) -> None:
        self._demo, self._say = demo, say
        self._stage, self._start, self._result = "", 0.0, ""

    def __call__(self, stage: str) -> _Steps:
        self._stage, self._result = stage, ""
        self._say(f"[{len(self._demo.steps) + 1}/7] {stage}")
        return self

    def __enter__(self) -> Callable[[str], None]:
        self._start = time.perf_counter()
        return self._set

    def _set(self, result: str) -> None:
        self._result = result

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            seconds = time.perf_counter() - self._start
            self._demo.steps.append((self._stage, self._result, seconds))
            self._say(f"      {self._result} ({seconds:.1f} s)")


def draw_faces(data: Path, progress: Progress) -> str:
    """Draws the demo's pictures into ``calibration`` and ``test`` of ``data``; says how many."""
    from ..quantize.synthetic import make_dataset

    bar = progress("draw", sum(videos * crops for _, videos, crops, _ in FACES))
    for name, videos, crops, split in FACES:
        make_dataset(data / name, videos, crops, seed=7, split=split, progress=bar)
    counts = [videos * crops for _, videos, crops, _ in FACES]
    return f"{counts[0]} crops to calibrate, {counts[1]} of other identities to test"


def _require(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        names = " and ".join(missing)
        raise UnsupportedError(
            "The demo needs torch to calibrate and PyAV to film",
            f"{names} not installed",
            f"pip install {' '.join(missing)}; run --images and compile need neither",
        )


def _calibrate(request: QuantRequest, say: Callable[[str], None], progress: Progress) -> str:
    from .quantization import calibrate

    manifest: Manifest = calibrate(request, say, progress)
    return f"{manifest.results['images']} images; quant_info.json, bias_corr.pth"


def _test(request: QuantRequest, say: Callable[[str], None], progress: Progress) -> str:
    from .quantization import measure

    _, evaluation = measure(request, say, progress)
    return f"{headline(evaluation.to_json())}; UYNet_int.xmodel"


def _compile(build: BuildFolder, say: Callable[[str], None]) -> str:
    from .compilation import CompileRequest, compile_build

    result = compile_build(CompileRequest(build), say).result
    return f"{result.xmodel.name}: {result.dpu_subgraphs} DPU subgraph, {result.target.dpu_name}"


def _clip(path: Path, progress: Progress) -> Tuple[Path, List[bool]]:
    from ..quantize.synthetic import make_clip

    bar = progress("film", round(CLIP_SECONDS * 25))
    clip = make_clip(path, seed=7, seconds=CLIP_SECONDS, manipulated=MANIPULATED, progress=bar)
    return clip.path, [bool(v) for v in clip.fake]


def _run(
    build: BuildFolder,
    clip: Path,
    output: Path,
    device: str,
    threads: Optional[int],
    say: Callable[[str], None],
    progress: Progress,
) -> Tuple[Dict[str, Any], str]:
    from ..inference.artifact import load_artifact
    from ..inference.run import RunOptions, run
    from ..inference.session import Session
    from ..inference.sources import open_video
    from ..inference.verdicts.gallery import Gallery
    from .defaults import choose_model
    from .evidence.folder import EvidenceOptions, write_evidence

    path, reason = choose_model(None, build.path)
    say(f"model {path} ({reason})")
    artifact, gallery = load_artifact(path), Gallery()
    with Session(artifact, device, threads=threads) as session:
        say(f"device {session.device_name}: {session.reason}")
        bar: Optional[Callable[[int], None]] = None
        shown = 0

        def show(done: int, total: Optional[int]) -> None:
            nonlocal bar, shown
            bar = bar or progress("run", total or 0)
            bar(done - shown)
            shown = done

        options = RunOptions(threads=threads, beside=True, model_reason=reason, viewers=[gallery])
        summary = run([open_video(str(clip))], session, output, options, show)
    done = write_evidence(output, summary, artifact, gallery, EvidenceOptions())
    summary = done.summary
    text = (
        f"{summary.meter.done} frames, {summary.frames_per_second:.0f} frames/s on "
        f"{summary.device}; {summary.verdict.state.value}"
    )
    return summary.to_json(), text


def _report(demo: Demo, folder: Path, truth: Sequence[bool]) -> None:
    from .evidence.folder import CONTACT
    from .report import Section, picture, write_page
    from .timeline import curve_svg

    result = folder / "result"
    with (result / "records.jsonl").open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    demo.overlay = result / "overlay.mp4"
    demo.picture = folder / "overview.png"
    demo.report = folder / "report.html"
    right = [r["verdict"] == ("FAKE" if fake else "REAL") for r, fake in zip(records, truth)]
    demo.agreement = sum(right) / max(1, len(truth))
    encoded = (result / CONTACT).read_bytes()
    with replacing(demo.picture) as temporary:
        temporary.write_bytes(encoded)
    verdict = str(demo.summary.get("verdict") or "inconclusive")
    evaluation = json.loads((folder / "build/quant_model/evaluation.json").read_text("utf-8"))
    compiled = json.loads((folder / "build/compiled/manifest.json").read_text("utf-8"))
    write_page(
        demo.report,
        "A generated clip, checked by a simulated VCK5000",
        (verdict, f"over {len(records)} frames; the clip was made with two manipulated stretches"),
        NOTE,
        [
            Section(
                "Where",
                "Fake probability of every frame. Shaded: what was manipulated when the clip was "
                "made. Dashed: the threshold.",
                curve_svg(records, demo.summary.get("threshold", 0.5), MANIPULATED),
            ),
            Section(
                "What it looks like",
                f"Frames with what was found in them. The whole clip: {demo.overlay.name}.",
                picture(encoded, "frames of the clip with their scores"),
            ),
            Section(
                "The stages",
                header=("stage", "result", "seconds"),
                rows=[(stage, text, f"{seconds:.1f}") for stage, text, seconds in demo.steps],
            ),
            Section(
                "Float and quantized, on identities the model was not trained on",
                header=("", "float", "quantized"),
                rows=_quality(evaluation),
            ),
            Section(
                "Made by",
                header=("what", "which"),
                rows=_origin(compiled, demo.summary),
            ),
        ],
    )


def headline(evaluation: Dict[str, Any]) -> str:
    """Dice and accuracy of both models in one line, or their agreement where nothing is known."""
    both = [evaluation.get("float") or {}, evaluation.get("quantized") or {}]
    words = []
    for name in ("dice", "accuracy"):
        values = [side.get(name) for side in both]
        if None not in values:
            words.append(f"{name} {values[0]:.4f} float, {values[1]:.4f} quantized")
    return "; ".join(words) or "no labels to measure by"


def _quality(evaluation: Dict[str, Any]) -> List[Sequence[str]]:
    both = [evaluation.get("float") or {}, evaluation.get("quantized") or {}]
    names = {"dice": "Dice", "iou": "IoU", "accuracy": "accuracy", "auc": "AUC"}
    rows: List[Sequence[str]] = []
    for key, shown in names.items():
        values = [side.get(key) for side in both]
        if None not in values:
            rows.append((shown, f"{values[0]:.4f}", f"{values[1]:.4f}"))
    return rows


def _origin(compiled: Dict[str, Any], summary: Dict[str, Any]) -> List[Sequence[str]]:
    rows: List[Sequence[str]] = [
        ("device", f"{summary.get('device')}: {summary.get('device_reason')}"),
        ("compiler", f"{compiled.get('backend')}: {compiled.get('backend_reason')}"),
    ]
    for kind in ("taken", "made"):
        rows += [
            (str(record["path"]), f"SHA-256 {record['sha256']}")
            for record in compiled.get(kind, ())
        ]
    rows += [(name, str(value)) for name, value in compiled.get("versions", {}).items()]
    return rows
