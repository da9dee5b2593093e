"""The watch over the card's temperature, with readings made up."""

from __future__ import annotations

import threading
from typing import Any, Callable, Iterator, List, Union

import pytest

from deepfake_fpga.board.health import CardHealth, Limits
from deepfake_fpga.errors import DeviceError, MissingError, ToolkitError
from deepfake_fpga.inference.devices.heat import HeatWatch

Reading = Union[float, None, ToolkitError]


class Watched:
    """A watch over a list of readings; ``ended`` is set when the last has been told."""

    def __init__(self, readings: List[Reading], max_celsius: float = 95.0) -> None:
        self.stops: List[ToolkitError] = []
        self.notes: List[str] = []
        self.limits: List[Limits] = []
        self.ended = threading.Event()
        self.made = threading.Event()
        self._readings: Iterator[Reading] = iter(readings)
        self.watch = HeatWatch(
            max_celsius, 85.0, 0.001, self.stops.append, self.notes.append, self.read
        )
        self.made.set()

    def read(self, limits: Limits) -> CardHealth:
        self.limits.append(limits)
        reading = next(self._readings, "end")
        if reading == "end":
            self.ended.set()
            self.made.wait(10)  # the readings may end before the constructor does
            self.watch.stop()
            reading = 30.0
        if isinstance(reading, ToolkitError):
            raise reading
        return health(reading, limits)

    def wait(self) -> None:
        while not self.ended.wait(0.01):
            if not self.watch._thread.is_alive():
                return


def health(celsius: Any, limits: Limits) -> CardHealth:
    stops, warnings = [], []
    if celsius is not None and celsius >= limits.stop_celsius.value:
        stops.append(f"the FPGA is at {celsius:g} °C, the limit is {limits.stop_celsius.value:g}")
    elif celsius is not None and celsius >= limits.warn_celsius.value:
        warnings.append(f"the FPGA is at {celsius:g} °C")
    return CardHealth(
        "0000:3b:00.1", "shell", celsius, None, None, None, (), (), (*stops, *warnings),
        tuple(stops), (), "the test",
    )  # fmt: skip


@pytest.fixture
def watched() -> Iterator[Callable[..., Watched]]:
    made: List[Watched] = []

    def make(*args: Any) -> Watched:
        made.append(Watched(*args))
        made[-1].wait()
        return made[-1]

    yield make
    for one in made:
        one.watch.stop()


def test_a_cool_card_is_left_alone(watched: Callable[..., Watched]) -> None:
    found = watched([30.0, 64.0, 84.9])
    assert not found.stops
    assert not found.notes


def test_a_warm_card_is_told_once(watched: Callable[..., Watched]) -> None:
    found = watched([86.0, 87.0, 80.0, 88.0])
    assert not found.stops
    assert found.notes == ["the FPGA is at 86 °C"]


def test_a_hot_card_is_stopped_once(watched: Callable[..., Watched]) -> None:
    found = watched([90.0, 95.0, 99.0, 99.0])
    (error,) = found.stops
    assert isinstance(error, DeviceError)
    assert "at 95 °C" in error.evidence
    assert "the test" in error.evidence
    assert len(found.limits) == 2  # the watch ended


def test_the_limit_is_the_runs_own(watched: Callable[..., Watched]) -> None:
    found = watched([70.0, 81.0], 80.0)
    assert len(found.stops) == 1
    assert found.limits[0].stop_celsius.value == 80.0
    assert found.limits[0].warn_celsius.value == 80.0


def test_no_tool_is_said_once_and_reading_goes_on(watched: Callable[..., Watched]) -> None:
    gone = MissingError("The program xbutil is not there")
    found = watched([gone, gone, 30.0, None, None, 96.0])
    assert found.notes == [
        "the card's temperature is not watched: The program xbutil is not there",
        "the card gives no temperature (the test)",
    ]
    assert len(found.stops) == 1
