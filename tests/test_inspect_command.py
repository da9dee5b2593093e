"""The command ``inspect``: text, JSON, picture and comparison, with their exit status."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import List

import pytest
from click.testing import CliRunner, Result

from deepfake_fpga.compile.xir import (
    Graph,
    Op,
    float32_tensor,
    read_xmodel,
    write_xmodel,
)
from deepfake_fpga.compile.xir.attributes import blob, int32s, string
from deepfake_fpga.deploy.commands.inspect import command
from deepfake_fpga.errors import FormatError, MissingError, UsageError


def run(*args: object) -> Result:
    words: List[str] = [str(arg) for arg in args]
    return CliRunner().invoke(command, words)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    graph = Graph("Net")
    shape = {"shape": int32s((1, 2)), "data_type": string("float32")}
    graph.add(Op("w", "const", float32_tensor("w", (1, 2)), {**shape, "data": blob(b"12345678")}))
    graph.add(Op("x", "data", float32_tensor("x", (1, 2)), shape))
    graph.add(Op("y", "add", float32_tensor("y", (1, 2)), {}, {"input": ("x", "w")}))
    graph.root.ops = list(graph.ops)
    path = tmp_path / "Net_int.xmodel"
    write_xmodel(graph, path)
    return path


def mutated(file: Path) -> Path:
    data = file.read_bytes()
    other = file.with_name("other.xmodel")
    other.write_bytes(data.replace(b"12345678", b"12345578"))
    return other


def test_text(file: Path) -> None:
    result = run(file)
    assert result.exit_code == 0
    assert "Net, 3 operators" in result.output
    assert "1 add, 1 const, 1 data" in result.output


def test_json(file: Path) -> None:
    result = run(file, "--json")
    assert result.exit_code == 0
    assert json.loads(result.output)["operators"] == {"add": 1, "const": 1, "data": 1}


def test_svg(file: Path, tmp_path: Path) -> None:
    picture = tmp_path / "new" / "net.svg"
    result = run(file, "--svg", picture)
    assert result.exit_code == 0
    assert ElementTree.parse(str(picture)).getroot().tag.endswith("svg")


def test_svg_does_not_overwrite_a_model(file: Path) -> None:
    before = file.read_bytes()
    assert isinstance(run(file, "--svg", file).exception, UsageError)
    assert file.read_bytes() == before


def test_no_difference(file: Path) -> None:
    result = run(file, "--diff", file)
    assert (result.exit_code, result.output) == (0, "no difference\n")


def test_difference(file: Path) -> None:
    result = run(file, "--diff", mutated(file))
    assert result.exit_code == 1
    assert "operator w: attribute data: element 1 is" in result.output
    assert "1 difference\n" in result.output


def test_difference_as_json(file: Path) -> None:
    result = run(file, "--diff", mutated(file), "--json")
    assert result.exit_code == 1
    (found,) = json.loads(result.output)["differences"]
    assert (found["where"], found["what"]) == ("operator w", "attribute data")


def test_trace_labels(shared: Path) -> None:
    golden = shared / "golden"
    old = golden / "release_2.5" / "micro_c_convt_concat" / "UpConcat_int.xmodel"
    new = golden / "micro_c_convt_concat" / "quantize_result" / "UpConcat_int.xmodel"
    assert {op.type for op in read_xmodel(old).ops.values()} >= {"transposed-conv2d", "concat"}
    strict = run(old, "--diff", new)
    loose = run(old, "--diff", new, "--ignore-trace-numbers")
    assert "missing: relu" in strict.output
    # The releases correct one bias differently; all else is the same under other names.
    assert (loose.exit_code, loose.output.count("\n")) == (1, 3)
    assert "operator UpConcat__up_bias: attribute data" in loose.output


def test_wrong_use(file: Path, tmp_path: Path) -> None:
    assert isinstance(run(tmp_path / "absent.xmodel").exception, MissingError)
    assert isinstance(run(file, "--ignore-trace-numbers").exception, UsageError)
    (tmp_path / "bad.xmodel").write_bytes(b"{}")
    assert isinstance(run(tmp_path / "bad.xmodel").exception, FormatError)
    assert isinstance(run(file, "--diff", tmp_path / "bad.xmodel").exception, FormatError)


def test_exit_status_through_the_front(file: Path, tmp_path: Path) -> None:
    script = "from deepfake_fpga.deploy.cli import main; main()"
    for args, status in [
        ([file, "--diff", file], 0),
        ([file, "--diff", mutated(file)], 1),
        ([tmp_path / "absent.xmodel"], 2),
    ]:
        done = subprocess.run(
            [sys.executable, "-c", script, "inspect", *map(str, args)],
            capture_output=True,
        )
        assert done.returncode == status, done.stderr
        assert b"Traceback" not in done.stderr
