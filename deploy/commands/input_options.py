"""Options of ``run`` that say what is read and which frames of it are judged."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Tuple, TypeVar

import click

from ...errors import UsageError

if TYPE_CHECKING:
    from ...inference.selection import Selection
    from ...inference.sources import OpenOptions, Source

F = TypeVar("F", bound=Callable[..., Any])

STDIN_FORMATS = ["auto", "tar", "video", "mjpeg", "list"]


@dataclass(frozen=True)
class InputOptions:
    """What was asked for.

    Attributes:
        inputs: words of any kind.
        stdin_format: what comes from standard input.
        silence: seconds without a frame after which a stream is given up.
        every: one frame of so many.
        fps: frames per second.
        start: seconds.
        end: seconds.
        duration: seconds from the start.
        skip_static: whether unchanged frames inherit.
        static_threshold: grey levels.
    """

    inputs: Tuple[str, ...]
    stdin_format: Optional[str]
    silence: Optional[float]
    every: int
    fps: Optional[float]
    start: float
    end: Optional[float]
    duration: Optional[float]
    skip_static: bool
    static_threshold: Optional[int]

    def selection(self) -> Selection:
        """Which frames are judged.

        Raises:
            UsageError: options contradict each other.
        """
        from ...inference.selection import STATIC_THRESHOLD, Selection

        if self.end is not None and self.duration is not None:
            raise UsageError(
                "--end and --duration both say where to stop",
                f"--end {self.end:g}, --duration {self.duration:g}",
                "leave one of them out",
            )
        if self.static_threshold is not None and not self.skip_static:
            raise UsageError(
                "--static-threshold is for --skip-static",
                f"--static-threshold {self.static_threshold} alone",
                "add --skip-static, or leave it out",
            )
        end = self.end if self.duration is None else self.start + self.duration
        level = STATIC_THRESHOLD if self.static_threshold is None else self.static_threshold
        return Selection(self.every, self.fps, self.start, end, self.skip_static, level)

    def sources(self, images: Sequence[str], videos: Sequence[str]) -> List[Source]:
        """The sources named on the command line, each once.

        Raises:
            ToolkitError: one of them is not there or is not what it should be.
        """
        from ...inference.sources import open_source

        given = {"--images": images, "--video": videos, "--input": self.inputs}
        named = [option for option, words in given.items() if words]
        if len(named) != 1:
            raise UsageError(
                "run takes either images or videos, or inputs of any kind",
                f"both {named[0]} and {named[1]} were given"
                if named
                else "neither --images nor --video nor --input was given",
                "type: deepfake-fpga run --input FILE -o OUT, once for each input",
            )
        words = list(dict.fromkeys(given[named[0]]))
        if self.stdin_format is not None and "-" not in words:
            raise UsageError(
                "--stdin-format is for standard input",
                f"no input is -; it is {words[0]}",
                f"add {named[0]} -, or leave it out",
            )
        expect = {"--images": "images", "--video": "video"}.get(named[0], "")
        options = self._opening(expect, several=len(words) > 1)
        sources = [open_source(word, options) for word in words]
        if self.silence is not None and not any(s.kind in ("stream", "camera") for s in sources):
            raise UsageError(
                "--silence is for streams and cameras",
                f"none is among {', '.join(words)}",
                f"leave --silence {self.silence:g} out",
            )
        return sources

    def _opening(self, expect: str, several: bool) -> OpenOptions:
        from ...inference.sources import LiveOptions, OpenOptions

        live = LiveOptions()
        end = self.selection().end
        live = LiveOptions(
            duration=end, silence=live.silence if self.silence is None else self.silence
        )
        return OpenOptions(expect, self.stdin_format or "auto", live, several=several)


def moment(value: Any) -> float:
    """A point in time or a length: seconds, ``MM:SS`` or ``HH:MM:SS``."""
    from ...inference.selection import seconds_of

    if isinstance(value, (int, float)):
        return float(value)
    try:
        return seconds_of(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no time: seconds, MM:SS or HH:MM:SS are") from None


OPTIONS = (
    click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="WORD",
        help="Anything: an image, a video, a folder, a pattern, a tar, a text list, a URL "
        "(rtsp, http, udp ...), a camera (camera:0, /dev/video0), - for standard input. Can be "
        "given more than once, of any kinds.",
    ),
    click.option(
        "--stdin-format",
        type=click.Choice(STDIN_FORMATS),
        help="What comes with --input -. Default: auto, by its first bytes.",
    ),
    click.option(
        "--silence",
        type=click.FloatRange(min=0.1),
        metavar="SECONDS",
        help="Time without a frame after which a stream or a camera is given up. Default: 60.",
    ),
    click.option(
        "--every",
        type=click.IntRange(min=1),
        default=1,
        metavar="N",
        help="Judge one frame of N.",
    ),
    click.option(
        "--fps",
        type=click.FloatRange(min=0, min_open=True),
        metavar="F",
        help="Judge F frames per second of the video's own time.",
    ),
    click.option(
        "--start", type=moment, default=0.0, metavar="TIME", help="Begin there: seconds or H:MM:SS."
    ),
    click.option("--end", type=moment, metavar="TIME", help="Stop there."),
    click.option(
        "--duration", type=moment, metavar="TIME", help="Stop so long after the start; for streams."
    ),
    click.option(
        "--skip-static",
        is_flag=True,
        help="A frame that looks like the last judged one takes its result, marked as inherited.",
    ),
    click.option(
        "--static-threshold",
        type=click.IntRange(1, 254),
        metavar="LEVELS",
        help="Grey levels, of 255, that count as a change for --skip-static. Default: 8.",
    ),
)

NAMES = (
    "inputs",
    "stdin_format",
    "silence",
    "every",
    "fps",
    "start",
    "end",
    "duration",
    "skip_static",
    "static_threshold",
)


def input_options(command: F) -> F:
    """Adds the options; the command gets them as one argument ``asked``.

    Passwords in addresses are hidden in the context's parameters, which may be written down.
    """

    @functools.wraps(command)
    def wrapped(**values: Any) -> Any:
        from ...inference.sources.streams import without_password

        asked: Dict[str, Any] = {name: values.pop(name) for name in NAMES}
        params = click.get_current_context().params
        for name in ("inputs", "videos"):
            if params.get(name):
                params[name] = tuple(without_password(word) for word in params[name])
        return command(asked=InputOptions(**asked), **values)

    function: Any = wrapped
    for option in reversed(OPTIONS):
        function = option(function)
    return function  # type: ignore[no-any-return]
