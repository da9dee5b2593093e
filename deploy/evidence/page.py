"""The page for a person who is no engineer: what was found, where, how sure, what it does not mean.

One self-contained HTML file in plain words, without script and without anything from elsewhere;
it can be printed.
"""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass
from typing import List, Sequence, Tuple

from ...inference.verdicts.gallery import Shot
from ...inference.verdicts.judgement import Rules
from ...inference.verdicts.records import Reason, State, VideoVerdict, track_name
from ...inference.verdicts.scores import Scores
from ...inference.verdicts.timeline import Interval, covered, duration
from ..timeline import curve_svg
from .drawings import curve_points, percent, scale_svg

STYLE = """
body { font: 17px/1.55 system-ui, sans-serif; color: #1f2933; background: #fff; max-width: 860px;
       margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.2rem; margin: 2rem 0 0.4rem }
.file { color: #52606d; margin: 0.2rem 0 1rem }
.answer { border-radius: 8px; color: #fff; padding: 0.9rem 1.2rem; print-color-adjust: exact;
          -webkit-print-color-adjust: exact }
.answer strong { display: block; font-size: 1.35rem }
.manipulated { background: #b02a2a } .authentic { background: #27704b }
.inconclusive { background: #52606d }
.warning { background: #fff3c4; border-left: 5px solid #f0b429; padding: 0.7rem 1rem;
           margin: 1rem 0; print-color-adjust: exact; -webkit-print-color-adjust: exact }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: 0.3rem 0.7rem 0.3rem 0; border-bottom: 1px solid #d9e2ec;
         vertical-align: top; font-variant-numeric: tabular-nums }
figure { margin: 1rem 0; break-inside: avoid } figcaption { color: #52606d; font-size: 0.9rem }
.shots { display: grid; grid-template-columns: repeat(auto-fill, minmax(350px, 1fr));
         gap: 0.6rem } .shots figure { margin: 0 } .shots img { width: 50%; height: auto }
svg { max-width: 100%; height: auto }
.technical { font-size: 0.82rem; color: #52606d } code { font-size: 0.95em }
@media print { body { margin: 0; max-width: none; font-size: 12px } h2 { break-after: avoid }
  table, li { break-inside: avoid } }
"""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

ANSWERS = {
    State.MANIPULATED: "Signs of manipulation were found",
    State.AUTHENTIC: "No signs of manipulation were found",
    State.INCONCLUSIVE: "No answer can be given",
}

OF_ONE = {
    State.MANIPULATED: "signs of manipulation",
    State.AUTHENTIC: "no signs of manipulation",
    State.INCONCLUSIVE: "no answer",
}

WHY = {
    Reason.NO_FRAMES: "Not a single picture of the video could be read.",
    Reason.NO_FACE: "No face was found in the video.",
    Reason.TOO_SMALL: "The faces in the video are too small to be judged.",
    Reason.BLURRED: "The faces in the video are too blurred to be judged.",
    Reason.CUT: "The faces in the video are cut off by the edge of the picture.",
    Reason.PROFILE: "The faces in the video are seen from the side only.",
    Reason.DECODE_ERROR: "The pictures of the video are damaged and could not be read.",
    Reason.NO_RESULT: "The device that computes gave no usable result.",
    Reason.TOO_FEW_FRAMES: "There are too few pictures of a face to say anything.",
    Reason.LOW_COVERAGE: "Too much of the video could not be looked at. What could be looked at "
    "shows no signs, but that is not enough to speak for the whole.",
    Reason.NEAR_THRESHOLD: "The result lies so near the border between the two answers that either "
    "would be a guess.",
    Reason.CONFLICTING_TRACKS: "Different faces gave different results, and the suspicious ones "
    "are there only briefly.",
}

MEANING = (
    "This is the estimate of a computer program. It is a reason to look closer, not a proof.",
    "It looks only at the pictures of faces. It says nothing about the sound, the words, the "
    "place, the date, or whether a scene was taken out of its context.",
    "Signs of manipulation do not say who made them, why, or whether the message is false. Strong "
    "compression, filters and poor light can look like manipulation to the program.",
    "That no signs were found does not mean that the video is genuine. A kind of manipulation the "
    "program was not trained on, or a very short one, can go unnoticed.",
    "The coloured area shows roughly where the program looked, not an exact outline.",
)

DEMONSTRATION = (
    '<p class="warning"><b>Made with the demonstration model.</b> It learned from drawn faces and '
    "from portraits blended with themselves, never from a real forgery, and about real people it "
    "is often wrong. Do not pass its answer on as a finding.</p>"
)

LONGEST_TABLE = 30


@dataclass(frozen=True)
class Story:
    """Everything the page tells of one video.

    Attributes:
        name: of the video, as named.
        verdict: what was found.
        scores: of its frames.
        intervals: when.
        worst: the most suspicious frames.
        rules: how frames became the verdict.
        demonstration: whether the model is the one that ships and is not made for real videos.
        notes: what was found wrong while reading.
        facts: label and text of the technical part, at the end.
        check: the command that verifies the folder.
    """

    name: str
    verdict: VideoVerdict
    scores: Scores
    intervals: Sequence[Interval]
    worst: Sequence[Shot]
    rules: Rules
    demonstration: bool
    notes: Sequence[str]
    facts: Sequence[Tuple[str, str]]
    check: str


def report(story: Story) -> str:
    """The page of one video."""
    state = story.verdict.state
    parts = [
        f'<p class="file">Video: {_text(story.name)}</p>',
        f'<div class="answer {state.value}"><strong>{ANSWERS[state]}</strong>'
        f"{_text(_first_sentence(story))}</div>",
    ]
    if story.demonstration:
        parts.append(DEMONSTRATION)
    parts += _found(story) + _where(story) + _how_sure(story) + _looked_at(story)
    parts.append("<h2>What this does not mean</h2>")
    parts.append("<ul>" + "".join(f"<li>{_text(line)}</li>" for line in MEANING) + "</ul>")
    parts += _record(story)
    return page(f"Report: {story.name}", "Was the face in this video manipulated?", parts)


def index(rows: Sequence[Tuple[str, str, VideoVerdict]], demonstration: bool = False) -> str:
    """The page that leads to the reports of several videos.

    Args:
        rows: folder, name and verdict of each.
        demonstration: as in ``Story``.
    """
    lines = []
    for folder, name, verdict in rows:
        link = f'<a href="{_text(_url(folder))}/report.html">{_text(name)}</a>'
        lines.append(
            f"<tr><td>{link}</td><td>{ANSWERS[verdict.state]}</td><td>{percent(verdict.probability)}</td>"
            f"<td>{100 * verdict.coverage:.0f} %</td></tr>"
        )
    head = "<tr><th>video</th><th>answer</th><th>fake probability</th><th>looked at</th></tr>"
    table = f"<table>{head}{''.join(lines)}</table>"
    parts = [DEMONSTRATION, table] if demonstration else [table]
    return page("Report", "Were the faces in these videos manipulated?", parts)


def page(title: str, heading: str, parts: Sequence[str]) -> str:
    """A whole page around what is in it (HTML already)."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_text(POLICY)}">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{_text(heading)}</h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _first_sentence(story: Story) -> str:
    verdict = story.verdict
    if verdict.reason is not None:
        return WHY[verdict.reason]
    return f"The program puts the probability of manipulation at {percent(verdict.probability)}."


def _found(story: Story) -> List[str]:
    verdict, seconds = story.verdict, covered(story.intervals)
    length = duration(story.scores)
    words = []
    several = len(verdict.tracks) > 1
    who = "At least one of the faces looks" if several else "The face looks"
    if story.intervals:
        count = len(story.intervals)
        stretches = "one stretch" if count == 1 else f"{count} stretches"
        if seconds > 0.99 * length:
            words.append(f"{who} manipulated in the whole video, {length:.1f} seconds.")
        else:
            words.append(
                f"{who} manipulated in {stretches} of the video, {seconds:.1f} of {length:.1f} "
                "seconds in all."
            )
        if verdict.state is not State.MANIPULATED:
            words.append(
                "That is not enough for the program to call the whole video manipulated, but "
                "these moments deserve a look."
            )
    elif verdict.judged:
        words.append("No stretch of the video stands out as manipulated.")
    else:
        words.append("Nothing, as nothing could be looked at.")
    if several:
        words.append(f"There are {len(verdict.tracks)} faces, numbered in the marked pictures.")
        for track in verdict.tracks:
            words.append(f"{track_name(track.track).capitalize()}: {OF_ONE[track.state]}.")
    return ["<h2>What was found</h2>", f"<p>{_text(' '.join(words))}</p>"]


def _where(story: Story) -> List[str]:
    if not story.verdict.judged:
        return []
    parts = ["<h2>Where</h2>"]
    shaded = [(interval.start, interval.end) for interval in story.intervals]
    drawing = curve_svg(curve_points(story.scores), story.rules.threshold, shaded)
    drawing = drawing.replace(' xmlns="http://www.w3.org/2000/svg"', "")
    parts.append(
        f"<figure>{drawing}<figcaption>How strongly each moment looks manipulated: 0 not at all, "
        "1 very strongly. Shaded: the stretches listed below.</figcaption></figure>"
    )
    if story.intervals:
        several = len(story.verdict.tracks) > 1
        head = ["from", "to", *(["who"] if several else []), "strength", "part of the picture"]
        rows = [_row(interval, several) for interval in story.intervals[:LONGEST_TABLE]]
        parts.append(_table(head, rows))
        more = len(story.intervals) - LONGEST_TABLE
        if more > 0:
            parts.append(f"<p>And {more} more, in timeline.json.</p>")
    if story.worst:
        parts.append(
            "<p>The moments with the strongest signs, each as it is and with the area that the "
            "program marked.</p>"
        )
    # Where nothing stands out, a few are enough to show that.
    shots = "".join(_figure(shot) for shot in story.worst[: None if story.intervals else 2])
    if shots:
        parts.append(f'<div class="shots">{shots}</div>')
    return parts


def _how_sure(story: Story) -> List[str]:
    verdict, calibration = story.verdict, story.rules.calibration
    parts = ["<h2>How sure is that</h2>"]
    if verdict.probability is None:
        parts.append("<p>There is nothing to be sure of: the video could not be judged.</p>")
        return parts
    parts.append(scale_svg(verdict.probability, story.rules))
    if not calibration.fitted:
        parts.append(
            "<p>Nobody has measured how often the program is right with this model. Read the "
            "number as a score on a scale from 0 to 100, not as a probability.</p>"
        )
        return parts
    held_out = calibration.fitted_on.get("held_out", {})
    alarms, missed = held_out.get("false_alarms"), held_out.get("missed")
    if isinstance(alarms, (int, float)) and isinstance(missed, (int, float)):
        parts.append(
            f"<p>In a test with videos whose truth was known, about {100 * alarms:.0f} of 100 "
            f"genuine videos were taken for manipulated, and about {100 * missed:.0f} of 100 "
            "manipulated ones were missed. With videos of another kind it can be more.</p>"
        )
    if story.demonstration:
        parts.append("<p>That holds for drawn faces, and for nothing else.</p>")
    return parts


def _looked_at(story: Story) -> List[str]:
    verdict = story.verdict
    words = (
        f"{verdict.judged} of the {verdict.frames} single pictures of the video "
        f"({100 * verdict.coverage:.0f} %)."
    )
    parts = ["<h2>How much was looked at</h2>", f"<p>{words}</p>"]
    lines = [
        f"{count} not judged: {why or status}"
        for (status, why), count in list(story.scores.failures().items())[:10]
    ]
    lines += [str(note) for note in story.notes]
    if lines:
        parts.append("<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>")
    return parts


def _record(story: Story) -> List[str]:
    rows = "".join(
        f"<tr><th>{_text(label)}</th><td>{_text(text)}</td></tr>" for label, text in story.facts
    )
    return [
        "<h2>For the record</h2>",
        f'<table class="technical">{rows}</table>',
        '<p class="technical">Every file of this folder is listed with its fingerprint in '
        f"evidence.json. Whether anything was changed since says: <code>{_text(story.check)}"
        "</code></p>",
    ]


def _row(interval: Interval, several: bool) -> List[str]:
    mask = interval.mask_fraction
    return [
        clock(interval.start),
        clock(interval.end),
        *([track_name(interval.track)] if several else []),
        f"{100 * interval.mean:.0f} of 100",
        "-" if mask is None else f"{100 * mask:.0f} %",
    ]


def clock(seconds: float) -> str:
    """``m:ss.t``, with hours where there are any."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes}:{rest // 10:02d}.{rest % 10}"
    return f"{hours}:{text.zfill(7)}" if hours else text


def _figure(shot: Shot) -> str:
    place = f"picture {shot.frame}" if shot.time is None else clock(shot.time)
    strength = 100 * (shot.fake_probability or 0.0)
    both = _image(shot.plain, f"the video at {place}")
    both += _image(shot.overlay, f"the same with the marked area, strength {strength:.0f} of 100")
    words = f"At {place}: strength {strength:.0f} of 100."
    return f"<figure>{both}<figcaption>{words}</figcaption></figure>"


def _image(jpeg: bytes, words: str) -> str:
    data = base64.b64encode(jpeg).decode("ascii")
    return f'<img alt="{_text(words)}" src="data:image/jpeg;base64,{data}">'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _url(name: str) -> str:
    from urllib.parse import quote

    return quote(name)


def _text(words: str) -> str:
    """Plain text for the page; what is no UTF-8 becomes escapes."""
    return html.escape(words.encode("utf-8", "backslashreplace").decode("utf-8"), quote=True)
