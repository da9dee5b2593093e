"""The vendor's programs are run with a limit, and their quirks do not reach the caller."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

import pytest

from deepfake_fpga.board.tools import run_for_json, run_tool
from deepfake_fpga.errors import DeviceError, MissingError

from .programs import put_program


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return folder


def test_a_missing_program_names_the_next_step(bin_folder: Path) -> None:
    with pytest.raises(MissingError) as caught:
        run_tool("xbutil", ["examine"])
    assert "not on PATH" in caught.value.evidence
    assert "source /opt/xilinx/xrt/setup.sh" in caught.value.next_step


def test_output_and_status_are_kept(bin_folder: Path) -> None:
    put_program(bin_folder, "xbutil", 'echo "out $1 $2"; echo err >&2; exit 3')
    output = run_tool("xbutil", ["examine", "-d 1"])
    assert (output.text, output.errors, output.status) == ("out examine -d 1\n", "err\n", 3)
    assert output.line == "xbutil examine -d 1"
    with pytest.raises(DeviceError, match="ended with status 3"):
        output.require()


def test_a_program_that_cannot_start(bin_folder: Path) -> None:
    program = put_program(bin_folder, "xbutil", "")
    program.write_text("#!/no/such/interpreter\n")
    with pytest.raises(DeviceError, match="cannot be started"):
        run_tool("xbutil")


def test_bytes_that_are_no_text(bin_folder: Path) -> None:
    put_program(bin_folder, "xbutil", r"printf 'a\377b'")
    assert run_tool("xbutil").text == "a\ufffdb"


def test_there_is_nobody_to_ask(bin_folder: Path) -> None:
    """A question of the tool's must not eat what is meant for our caller, nor wait for it."""
    put_program(bin_folder, "xbutil", "read answer || echo nobody")
    reader, writer = os.pipe()
    saved = os.dup(0)
    try:
        os.write(writer, b"yes\n")
        os.dup2(reader, 0)
        assert run_tool("xbutil").text == "nobody\n"
    finally:
        os.dup2(saved, 0)
        for handle in (reader, writer, saved):
            os.close(handle)


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_hung_program_is_killed_with_its_children(bin_folder: Path, tmp_path: Path) -> None:
    """The vendor's are scripts around a native program, which holds the output open."""
    note = tmp_path / "child"
    put_program(bin_folder, "xbutil", f"echo begun; sleep 600 & echo $! > {note}; wait; echo never")
    output = run_tool("xbutil", ["validate"], timeout=1.0)
    assert output.timed_out
    assert output.status is None
    assert output.text == "begun\n"
    child = int(note.read_text())
    for _ in range(200):
        if not alive(child):
            break
        time.sleep(0.02)
    assert not alive(child)
    with pytest.raises(DeviceError, match="did not answer within 1 s and was killed") as caught:
        output.require()
    assert "begun" in caught.value.evidence


def test_the_words_of_an_error_before_the_usage(bin_folder: Path) -> None:
    put_program(bin_folder, "xbutil", "echo fine; (echo 'ERROR: no card'; echo 'USAGE: x') >&2")
    assert run_tool("xbutil").last_words == "ERROR: no card"
    put_program(bin_folder, "xbutil", "echo one; echo two; echo")
    assert run_tool("xbutil").last_words == "two"
    put_program(bin_folder, "xbutil", "true")
    assert run_tool("xbutil").last_words == ""


JSON_WRITER = """
while [ "$1" != "-o" ]; do shift; done
if [ -e "$2" ]; then echo "ERROR: $2 exists"; exit 1; fi
echo '{"devices": "%s"}' > "$2"
echo the plain report
echo "Successfully wrote the JSON file: $2"
"""


def test_json_comes_by_a_new_file(bin_folder: Path, tmp_path: Path) -> None:
    note = tmp_path / "where"
    put_program(bin_folder, "xbutil", JSON_WRITER % "x" + f'echo "$2" >> {note}')
    for _ in range(2):
        content, output = run_for_json("xbutil", ["examine", "-r", "thermal"])
        assert content == {"devices": "x"}
        assert output.text.startswith("the plain report\n")
        assert output.line == "xbutil examine -r thermal -f JSON -o FILE"
    first, second = note.read_text().split()
    assert first != second
    assert not Path(first).parent.exists()


@pytest.mark.parametrize(
    "script",
    [
        "exit 0",  # says nothing, writes nothing
        'while [ "$1" != "-o" ]; do shift; done; echo "{" > "$2"; exit 0',
        'while [ "$1" != "-o" ]; do shift; done; : > "$2"; exit 1',
        'echo "unrecognised option -f" >&2; exit 1',
    ],
)
def test_no_readable_file_is_no_json(bin_folder: Path, script: str) -> None:
    put_program(bin_folder, "xbutil", script)
    content, output = run_for_json("xbutil", ["examine"])
    assert content is None
    assert output.status in (0, 1)


def test_json_is_read_whatever_the_status(bin_folder: Path) -> None:
    put_program(bin_folder, "xbutil", JSON_WRITER % "y" + "exit 1")
    content, output = run_for_json("xbutil", ["examine"])
    assert json.dumps(content) == '{"devices": "y"}'
    assert output.status == 1
