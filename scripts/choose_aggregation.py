"""Measures how frame scores are best taken together, and fits the temperature of the best.

python scripts/choose_aggregation.py --scores tests/data/aggregation.jsonl            # the tables
python scripts/choose_aggregation.py --scores new.jsonl --clips 360 --model M.xmodel  # new scores
python scripts/choose_aggregation.py --scores new.jsonl --model M.xmodel --write      # verdict.json

Clips are synthetic, of people of the test split: a third authentic, a third manipulated from end
to end, a third in one stretch of a fifth to three fifths of the time; every second triple is kept
for the report, the others choose and fit. Drawing takes two seconds a clip, so their scores are
kept in a file; a file that has enough of them is not touched.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterable, List, Sequence, Tuple

import numpy as np

from deepfake_fpga.deploy.defaults import default_model
from deepfake_fpga.errors import ToolkitError, UsageError
from deepfake_fpga.files import sha256
from deepfake_fpga.inference.verdicts.aggregation import AGGREGATIONS
from deepfake_fpga.inference.verdicts.calibration import (
    FILE,
    Calibration,
    fit_temperature,
    log_loss,
    write_calibration,
)

KINDS = ("authentic", "whole", "part")
SECONDS, RATE = 4.0, 12
FIRST_SEED = 500
QUALITIES = (20, 26, 32)
"""H.264 constant rate factors."""
BANDS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
FEWEST = 24
"""Clips; half of them choose."""
UNDECIDED = 1 / 3
"""What an inconclusive clip costs, where a wrong one costs 1."""
LENGTHS = (1, 2, 4, 8)
"""Clips joined to see what length does."""
JOINED = 200
MIXED = np.arange(2 * JOINED) >= JOINED
"""Which of the joined clips hold a manipulated one."""
MOST_ALARMS = 0.1
"""Share of the authentic clips of any length that a way may accuse to be chosen: one that accuses
more of them the longer they are is of no use for a video of minutes."""

Clips = List[Dict[str, Any]]


def main() -> int:
    """Reads the command line, makes what scores are missing, prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scores", type=Path, required=True, help="JSON Lines, one clip each")
    parser.add_argument("--clips", type=int, default=0, help="so many are wanted in the file")
    parser.add_argument("--model", type=Path, default=default_model(), help="compiled model")
    parser.add_argument("--write", action="store_true", help=f"write {FILE} beside the model")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    digest = sha256(args.model)
    clips = read_scores(args.scores)
    others = {clip["xmodel"] for clip in clips} - {digest}
    if others and (args.write or len(clips) < args.clips):
        raise UsageError(
            f"The scores in {args.scores} are of another model",
            f"SHA-256 {', '.join(sorted(others))}, not {digest}",
            "name a new file with --scores, and --clips 360",
        )
    make_scores(args.scores, args.clips - len(clips), len(clips), args.model)
    clips = read_scores(args.scores)
    if len(clips) < FEWEST:
        raise UsageError(
            f"{len(clips)} clips are too few to choose by", str(args.scores), "add --clips 360"
        )
    study = measure(clips)
    if args.write:
        path = write_calibration(args.model, *chosen(args.scores, clips, study))
        print(f"written: {path}", file=sys.stderr)
    print(json.dumps(study, indent=2) if args.json else tables(study))
    return 0


def read_scores(path: Path) -> Clips:
    """The clips in a file of scores; none where there is no file."""
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def make_scores(path: Path, count: int, first: int, model: Path) -> None:
    """Appends ``count`` clips from number ``first`` on, judged by a compiled model on ``sim``."""
    if count <= 0:
        return
    from deepfake_fpga.inference.artifact import load_artifact
    from deepfake_fpga.inference.run import RunOptions, run
    from deepfake_fpga.inference.session import Session
    from deepfake_fpga.inference.sources import open_video
    from deepfake_fpga.quantize.synthetic import make_clip

    with Session(load_artifact(model), "sim", threads=1) as session, path.open("a") as out:
        for number in range(first, first + count):
            kind, stretches, quality = plan(number)
            with tempfile.TemporaryDirectory() as folder:
                clip = make_clip(
                    Path(folder, "clip.mp4"),
                    seed=FIRST_SEED + number,
                    seconds=SECONDS,
                    fps=RATE,
                    manipulated=stretches,
                    split="test",
                    crf=quality,
                )
                options = RunOptions(threads=1, pictures=False)
                run([open_video(str(clip.path))], session, Path(folder, "out"), options)
                lines = Path(folder, "out", "records.jsonl").read_text("utf-8").splitlines()
            records = [json.loads(line) for line in lines]
            row = {
                "xmodel": sha256(model),
                "number": number,
                "kind": kind,
                "manipulated": stretches,
                "crf": quality,
                "identity": int(clip.identity),
                "truth": [int(value) for value in clip.fake],
                "probability": [round(record["fake_probability"], 4) for record in records],
                "mask": [round(record["mask_fraction"], 4) for record in records],
            }
            out.write(json.dumps(row) + "\n")
            out.flush()
            print(f"\r{number + 1} of {first + count} clips", end="", file=sys.stderr)
    print(file=sys.stderr)


def plan(number: int) -> Tuple[str, Sequence[Tuple[float, float]], int]:
    """Kind, manipulated stretches and compression of a clip."""
    kind = KINDS[number % 3]
    rng = random.Random(number)
    quality = rng.choice(QUALITIES)
    if kind == "authentic":
        return kind, (), quality
    if kind == "whole":
        return kind, ((0.0, SECONDS),), quality
    length = rng.uniform(0.2, 0.6) * SECONDS
    start = rng.uniform(0, SECONDS - length)
    return kind, ((round(start, 3), round(start + length, 3)),), quality


def measure(clips: Clips) -> Dict[str, Any]:
    """All ways of taking frames together: chosen on one half, reported on the other."""
    labels = np.array([clip["kind"] != "authentic" for clip in clips])
    partly = np.array([clip["kind"] == "part" for clip in clips])
    choosing = np.array([clip["number"] // 3 % 2 == 0 for clip in clips])
    halves = {
        "choosing": join([clip for clip, first in zip(clips, choosing) if first]),
        "reported": join([clip for clip, first in zip(clips, choosing) if not first]),
    }
    ways: Dict[str, Any] = {}
    seconds: Dict[str, Dict[str, Dict[str, float]]] = {}
    for name in AGGREGATIONS:
        scores = np.array([aggregate(name, clip["probability"]) for clip in clips])
        longer = {half: gathered(name, videos) for half, videos in halves.items()}
        # Over all lengths: what fits short clips alone makes too sure of long ones.
        pooled = np.concatenate(list(longer["choosing"].values()))
        temperature = fit_temperature(pooled, np.tile(MIXED, len(LENGTHS)))
        ways[name] = way = {"temperature": temperature, "scores": scores}
        for half, rows in (("choosing", choosing), ("reported", ~choosing)):
            lots = {length: errors(one, temperature) for length, one in longer[half].items()}
            way[half] = {
                **figures(scores, labels, partly, rows, temperature),
                "mean_log_loss": _mean(one["log_loss"] for one in lots.values()),
                "mean_log_loss_raw": _mean(
                    errors(one, 1.0)["log_loss"] for one in longer[half].values()
                ),
                "most_false_alarms": max(one["false_alarms"] for one in lots.values()),
            }
        for length, one in lots.items():
            seconds.setdefault(length, {})[name] = one
    calm = [n for n in ways if ways[n]["choosing"]["most_false_alarms"] <= MOST_ALARMS] or ways
    best = min(calm, key=lambda name: ways[name]["choosing"]["mean_log_loss"])
    best_scores, temperature = ways[best].pop("scores"), ways[best]["temperature"]
    for way in ways.values():
        way.pop("scores", None)
    bands = {
        str(band): {
            "choosing": undecided(best_scores[choosing], labels[choosing], temperature, band),
            "reported": undecided(best_scores[~choosing], labels[~choosing], temperature, band),
        }
        for band in BANDS
    }
    return {
        "clips": len(clips),
        "aggregation": best,
        "temperature": temperature,
        # Where two cost the same, the one that decides less.
        "band": float(min(reversed(BANDS), key=lambda band: bands[str(band)]["choosing"]["cost"])),
        "ways": ways,
        "bands": bands,
        "lengths": seconds,
    }


def aggregate(name: str, probabilities: Sequence[float]) -> float:
    """The score of one clip."""
    p = np.asarray(probabilities, np.float64)
    return AGGREGATIONS[name](p, np.arange(len(p)) / RATE)


def figures(
    scores: np.ndarray,
    labels: np.ndarray,
    partly: np.ndarray,
    rows: np.ndarray,
    temperature: float,
) -> Dict[str, float]:
    """AUC, log-loss before and after the temperature, and errors at one half, of some rows."""
    p = Calibration(temperature).apply_to(scores[rows])
    truth, decided = labels[rows], p >= 0.5
    few = rows & (partly | ~labels)
    return {
        "auc": auc(scores[rows], truth),
        "auc_part": auc(scores[few], labels[few]),
        "log_loss_raw": round(log_loss(Calibration(1.0).apply_to(scores[rows]), truth), 4),
        "log_loss": round(log_loss(p, truth), 4),
        "false_alarms": round(float(decided[~truth].mean()), 4),
        "missed": round(float((~decided[truth]).mean()), 4),
    }


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a manipulated clip scores higher than an authentic one."""
    more = scores[labels][:, None] - scores[~labels][None]
    return round(float(((more > 0) + 0.5 * (more == 0)).mean()), 4)


def undecided(
    scores: np.ndarray, labels: np.ndarray, temperature: float, band: float
) -> Dict[str, float]:
    """Errors and inconclusive clips with a band around one half, and what they cost."""
    p = Calibration(temperature).apply_to(scores)
    near = np.abs(p - 0.5) < band
    wrong = ((p >= 0.5) != labels) & ~near
    return {
        "wrong": int(wrong.sum()),
        "inconclusive": int(near.sum()),
        "cost": round(float(wrong.sum() + UNDECIDED * near.sum()), 4),
    }


def join(clips: Clips) -> Dict[str, List[np.ndarray]]:
    """Longer videos, by seconds: authentic clips joined, then the same with a manipulated one."""
    rng = np.random.RandomState(0)
    good = [clip["probability"] for clip in clips if clip["kind"] == "authentic"]
    bad = [clip["probability"] for clip in clips if clip["kind"] == "whole"]
    found: Dict[str, List[np.ndarray]] = {}
    for count in LENGTHS:
        calm, mixed = [], []
        for _ in range(JOINED):
            calm.append(np.concatenate([good[i] for i in rng.choice(len(good), count)]))
            rest = [good[i] for i in rng.choice(len(good), count - 1)]
            mixed.append(np.concatenate([bad[rng.randint(len(bad))], *rest]))
        found[f"{count * SECONDS:g}"] = [*calm, *mixed]
    return found


def gathered(name: str, videos: Dict[str, List[np.ndarray]]) -> Dict[str, np.ndarray]:
    """The score of each of the joined videos, by seconds."""
    return {length: np.array([aggregate(name, p) for p in own]) for length, own in videos.items()}


def errors(scores: np.ndarray, temperature: float) -> Dict[str, float]:
    """Log-loss and errors at one half of the joined videos of one length."""
    p = Calibration(temperature).apply_to(scores)
    return {
        "log_loss": round(log_loss(p, MIXED), 4),
        "false_alarms": float((p[~MIXED] >= 0.5).mean()),
        "missed": float((p[MIXED] < 0.5).mean()),
    }


def _mean(values: Iterable[float]) -> float:
    return round(float(np.mean(list(values))), 4)


def chosen(scores: Path, clips: Clips, study: Dict[str, Any]) -> Tuple[Calibration, str]:
    """The calibration to write beside the model, and what it was fitted on."""
    name = study["aggregation"]
    fitted_on = {
        "scores": scores.name,
        "scores_sha256": sha256(scores),
        "held_out": study["ways"][name]["reported"],
    }
    found = Calibration(study["temperature"], name, study["band"], fitted_on=fitted_on)
    return found, f"{sum(clip['number'] // 3 % 2 == 0 for clip in clips)} synthetic clips"


def tables(study: Dict[str, Any]) -> str:
    """The tables of docs/verdicts.md."""
    lines = [
        "| way | choosing: AUC | log-loss | all lengths | false alarms, worst length | temperature "
        "| held out: AUC | AUC, partly | all lengths, raw | all lengths | false alarms | missed |",
        "|---" * 12 + "|",
    ]
    for name, way in study["ways"].items():
        first, then = way["choosing"], way["reported"]
        shown = f"**{name}**" if name == study["aggregation"] else name
        lines.append(
            f"| {shown} | {first['auc']:.3f} | {first['log_loss']:.3f} "
            f"| {first['mean_log_loss']:.3f} | {100 * first['most_false_alarms']:.0f} % "
            f"| {way['temperature']:.2f} "
            f"| {then['auc']:.3f} | {then['auc_part']:.3f} | {then['mean_log_loss_raw']:.3f} "
            f"| {then['mean_log_loss']:.3f} | {100 * then['false_alarms']:.0f} % "
            f"| {100 * then['missed']:.0f} % |"
        )
    lines += ["", "| band | wrong | inconclusive | cost | wrong, held out | inconclusive |"]
    lines.append("|---|---|---|---|---|---|")
    for band, both in study["bands"].items():
        first, then = both["choosing"], both["reported"]
        shown = f"**{band}**" if float(band) == study["band"] else band
        lines.append(
            f"| {shown} | {first['wrong']} | {first['inconclusive']} | {first['cost']:.2f} "
            f"| {then['wrong']} | {then['inconclusive']} |"
        )
    names = list(AGGREGATIONS)
    lines += ["", "| seconds | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for seconds, by_name in study["lengths"].items():
        cells = (
            f"{100 * by_name[name]['false_alarms']:.0f} % / {100 * by_name[name]['missed']:.0f} %"
            for name in names
        )
        lines.append(f"| {seconds} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ToolkitError as error:
        sys.exit(f"Error: {error}")
