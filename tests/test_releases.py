"""Older releases: our run by their rules gives their files, and theirs are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from deepfake_fpga.compile.xir.diff import diff_graphs  # noqa: E402
from deepfake_fpga.compile.xir.xmodel import read_xmodel  # noqa: E402
from deepfake_fpga.errors import FormatError, MismatchError, UnsupportedError  # noqa: E402
from deepfake_fpga.quantize import graph as g  # noqa: E402
from deepfake_fpga.quantize import results  # noqa: E402
from deepfake_fpga.quantize.adjustment import adjust  # noqa: E402
from deepfake_fpga.quantize.factors import pool_factor  # noqa: E402
from deepfake_fpga.quantize.fixpoint import search  # noqa: E402
from deepfake_fpga.quantize.graph import Node, QuantizerGraph  # noqa: E402
from deepfake_fpga.quantize.groups import entries  # noqa: E402
from deepfake_fpga.quantize.quantizer import QuantizeOptions, Quantizer  # noqa: E402
from deepfake_fpga.quantize.releases import (  # noqa: E402
    RELEASES,
    V1_4_1,
    V2_0,
    V2_5,
    V3_0,
    V3_5,
    Release,
)

from . import golden, nets  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]

RECORDED = ["1.4.1", "2.0", "2.5"]
MICRO = ["micro_c_convt_concat", "micro_d_pool_linear_sigmoid"]

Case = Tuple[golden.Recording, golden.Ours]


CASES = [(release, name) for release in RECORDED for name in [*MICRO, "uynet_w8"]]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(case, id="-".join(case), marks=pytest.mark.slow)
        if case[1] == "uynet_w8"
        else pytest.param(case, id="-".join(case))
        for case in CASES
    ],
)
def case(request: pytest.FixtureRequest, data: Path, one_thread: None) -> Case:
    release, name = request.param
    recording = golden.recording(
        name, data, lambda: Path(request.getfixturevalue("shared")), release
    )
    return recording, golden.run(recording)


def test_equals_the_recording(case: Case) -> None:
    recording, ours = case
    assert {k: v for k, v in golden.differences(recording, ours).items() if v} == {}


def test_exports_the_recorded_xmodel(case: Case, shared: Path, tmp_path: Path) -> None:
    recording, ours = case
    folder = shared / "golden" / f"release_{recording.release}" / recording.name
    found = list(folder.glob("*_int.xmodel"))
    if not found:
        pytest.skip("the vendor's export of this case crashed")
    ours.quantized.export_xmodel(tmp_path / "ours.xmodel")
    theirs, written = read_xmodel(found[0]), read_xmodel(tmp_path / "ours.xmodel")
    assert [str(d) for d in diff_graphs(theirs, written, ignore_trace_numbers=True)] == []


def vendor_files(recording: golden.Recording, folder: Path) -> Path:
    """The recorded calibration as the vendor's tool leaves it."""
    folder.mkdir(exist_ok=True)
    (folder / results.QUANT_INFO).write_text(recording.quant_info, encoding="utf-8")
    torch.save(recording.json("bias_corr"), str(folder / results.BIAS_CORR))
    return folder


def test_reads_theirs(case: Case, tmp_path: Path) -> None:
    recording, ours = case
    options = QuantizeOptions(release=recording.release)
    quantizer = Quantizer(recording.model(), recording.inputs("calib")[:1], options)
    quantized = quantizer.quantized(vendor_files(recording, tmp_path))
    parameters = quantized.int8_parameters()
    theirs = recording.arrays("params_int8")
    assert list(theirs) == list(parameters)
    assert all(np.array_equal(theirs[key], parameters[key]) for key in theirs)
    answers = [quantized(image) for image in recording.inputs("test").split(1)]  # type: ignore[no-untyped-call]
    answers = [a if isinstance(a, tuple) else (a,) for a in answers]
    read = golden.Ours(
        quantizer,
        ours.calibration,
        quantized,
        [np.concatenate([head.numpy() for head in heads]) for heads in zip(*answers)],
        {},
    )
    assert {k: v for k, v in golden.differences(recording, read).items() if v} == {}


@pytest.mark.parametrize("release", RECORDED)
@pytest.mark.parametrize("name", MICRO)
def test_the_form_tells_the_release(release: str, name: str, data: Path, tmp_path: Path) -> None:
    recording = golden.recording(name, data, Path, release)
    found = results.load(vendor_files(recording, tmp_path)).release
    # Without a sigmoid nothing tells the two oldest apart.
    same = release == "1.4.1" and name == "micro_c_convt_concat"
    assert found == RELEASES["2.0" if same else release]
    assert results.same_form(found, RELEASES[release])


# --- a changed byte is seen ---


@pytest.fixture(scope="module")
def micro(data: Path, one_thread: None) -> Case:
    recording = golden.recording(MICRO[1], data, Path, "2.5")
    return recording, golden.run(recording)


@pytest.mark.parametrize(
    ("name", "kind"), [("params_int8", "int8 parameters"), ("quant_outputs", "outputs")]
)
def test_a_flipped_byte_in_an_array_is_seen(
    name: str, kind: str, micro: Case, tmp_path: Path
) -> None:
    recording, ours = micro
    spoiled = copy_of(recording, tmp_path)
    arrays = spoiled.arrays(name)
    values = arrays[list(arrays)[-1]]
    values.view(np.uint8).reshape(-1)[values.nbytes // 2] ^= 0x40
    np.savez(str(spoiled.folder / f"{name}.npz"), **arrays)
    assert [k for k, v in golden.differences(spoiled, ours).items() if v] == [kind]


@pytest.mark.parametrize(
    ("name", "kind", "before", "after"),
    [
        ("quant_info", "quant_info", b"[8,7]", b"[8,6]"),
        ("quant_info", "quant_info", b"Linear[linear_2]/", b"Linear[linear_3]/"),
        ("quant_info", "quant_info", b'"bias_corrected":t', b'"bias_corrected":f'),
        ("bias_corr", "corrections", b"0.00588", b"0.00587"),
        ("bias_corr", "corrections", b"Linear[linear_1]/", b"Linear[linear_7]/"),
    ],
)
def test_a_changed_byte_in_a_text_is_seen(
    name: str, kind: str, before: bytes, after: bytes, micro: Case, tmp_path: Path
) -> None:
    recording, ours = micro
    spoiled = copy_of(recording, tmp_path)
    path = spoiled.folder / f"{name}.json"
    text = path.read_bytes()
    assert before in text
    path.write_bytes(text.replace(before, after, 1))
    assert [k for k, v in golden.differences(spoiled, ours).items() if v] == [kind]


def test_a_changed_byte_in_an_xmodel_is_seen(micro: Case, shared: Path, tmp_path: Path) -> None:
    recording, ours = micro
    (theirs,) = (shared / "golden" / "release_2.5" / recording.name).glob("*_int.xmodel")
    content = theirs.read_bytes()
    weights = read_xmodel(theirs).ops["PoolLinear__linear_1_weight"].attrs["data"].value
    assert isinstance(weights, bytes)
    assert content.count(weights) == 1
    at = content.index(weights) + 2
    spoiled = tmp_path / "spoiled.xmodel"
    spoiled.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    ours.quantized.export_xmodel(tmp_path / "ours.xmodel")
    found = diff_graphs(
        read_xmodel(spoiled), read_xmodel(tmp_path / "ours.xmodel"), ignore_trace_numbers=True
    )
    assert [(d.where, d.what) for d in found] == [
        ("operator PoolLinear__linear_1_weight", "attribute data")
    ]


def copy_of(recording: golden.Recording, folder: Path) -> golden.Recording:
    shutil.copytree(str(recording.folder), str(folder / "case"))
    return golden.Recording(recording.name, folder / "case", recording.source, recording.release)


# --- files of others ---


def spoil(folder: Path, before: str, after: str) -> None:
    path = folder / results.QUANT_INFO
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


@pytest.mark.parametrize(
    ("before", "after", "evidence"),
    [
        ("PoolLinear/Linear[linear_2]/80", "PoolLinear/Linear[linear_3]/80", "number 4 is"),
        ('    "PoolLinear::PoolLinear/62":[8,6],\n', "", "number 3 is"),
        (
            '"PoolLinear::PoolLinear/Linear[linear_2]/80":[8,5]',
            '"PoolLinear::PoolLinear/Linear[linear_2]/80":[8,5],\n"PoolLinear::PoolLinear/90":[8,5]',
            "6 tensors, 5 in this model",
        ),
        ("PoolLinear::linear_2.bias", "PoolLinear::linear_9.bias", "PoolLinear::linear_2.bias"),
    ],
)
def test_tensors_of_another_model(
    before: str, after: str, evidence: str, data: Path, tmp_path: Path
) -> None:
    recording = golden.recording(MICRO[1], data, Path, "2.5")
    folder = vendor_files(recording, tmp_path)
    spoil(folder, before, after)
    with pytest.raises(MismatchError, match="another model") as caught:
        quantizer_of(recording).load(folder)
    assert evidence in caught.value.evidence


def test_corrections_of_another_model(data: Path, tmp_path: Path) -> None:
    recording = golden.recording(MICRO[1], data, Path, "2.0")
    folder = vendor_files(recording, tmp_path)
    table: Dict[str, Any] = dict(recording.json("bias_corr"))  # type: ignore[call-overload]
    first, second = table
    torch.save({second: table[second], first: table[first]}, str(folder / results.BIAS_CORR))
    with pytest.raises(MismatchError) as caught:
        quantizer_of(recording).load(folder)
    assert "bias corrections: number 0 is" in caught.value.evidence


def test_a_tensor_left_without_a_position(data: Path, tmp_path: Path) -> None:
    recording = golden.recording(MICRO[1], data, Path, "1.4.1")
    folder = vendor_files(recording, tmp_path)
    spoil(folder, '/86":[8,6]', '/86":[8,null]')
    with pytest.raises(FormatError, match=r"no fix position for PoolLinear::PoolLinear/ret\.2"):
        quantizer_of(recording).load(folder)


def test_rules_of_another_release(data: Path, tmp_path: Path) -> None:
    recording = golden.recording(MICRO[1], data, Path, "2.5")
    folder = vendor_files(recording, tmp_path)
    quantizer = Quantizer(recording.model(), recording.inputs("calib")[:1])
    with pytest.raises(
        MismatchError, match=r"form of release 2\.5, the options say 3\.0"
    ) as caught:
        quantizer.load(folder)
    assert "--release 2.5" in caught.value.next_step


def quantizer_of(recording: golden.Recording) -> Quantizer:
    options = QuantizeOptions(release=recording.release)
    return Quantizer(recording.model(), recording.inputs("calib")[:1], options)


# --- release 3.0, of which there is no recording, and what the recorded nets do not show ---


def test_3_0_is_3_5_with_the_tracers_names(data: Path, tmp_path: Path) -> None:
    recording = golden.recording("micro_c_convt_concat", data, Path)
    images = recording.inputs("calib").split(golden.BATCH)  # type: ignore[no-untyped-call]
    found = {
        name: Quantizer(recording.model(), images[0], QuantizeOptions(release=name)).calibrate(
            images
        )
        for name in ("3.0", "3.5")
    }
    older, newer = found["3.0"].info, found["3.5"].info
    assert list(older.params.items()) == list(newer.params.items())
    assert list(older.outputs.values()) == list(newer.outputs.values())
    assert list(older.outputs) == [
        "UpConcat::input_0",
        "UpConcat::UpConcat/ReLU[relu]/ret.2",
        "UpConcat::UpConcat/MaxPool2d[pool]/ret.3",
        "UpConcat::UpConcat/ret.5",
    ]
    assert older.corrections is not None
    assert list(older.corrections) == [
        "UpConcat::UpConcat/Conv2d[conv]/ret.1",
        "UpConcat::UpConcat/ConvTranspose2d[up]/ret.4",
    ]
    raw = json.loads(older.text())
    assert list(raw) == [
        "param", "output", "input", "fast_finetuned", "bias_corrected", "version",
    ]  # fmt: skip
    assert raw["param"]["UpConcat::conv.weight"] == [[8, 7]]
    for name, calibration in found.items():
        calibration.save(tmp_path)
        assert results.load(tmp_path).release == RELEASES[name]
        assert results.load(tmp_path) == calibration.info


@pytest.mark.parametrize(
    ("release", "kernel", "several_pixels", "factor"),
    [
        (V1_4_1, (7, 7), False, 49 * 21 / 1024),
        (V1_4_1, (7, 7), True, 1.0),
        (V1_4_1, (3, 6), False, 1.0),
        (V1_4_1, (9, 9), False, 1.0),
        (V2_0, (7, 7), True, 49 * 21 / 1024),
        (V2_0, (3, 6), False, 18 * 14 / 256),
        (V2_0, (9, 9), False, 0.9986572265625),
    ],
)
def test_pool_factors(
    release: Release, kernel: Tuple[int, int], several_pixels: bool, factor: float
) -> None:
    assert pool_factor(kernel, release, several_pixels) == factor


@pytest.mark.parametrize(("release", "position"), [(V1_4_1, 0), (V2_0, 0), (V2_5, 12), (V3_0, 12)])
def test_a_tensor_of_zeros(release: Release, position: int) -> None:
    assert search(torch.zeros(9), release=release) == position


class Dropped(nn.Module):
    """Two convolutions, a dropout between them, and a batch norm to fold."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout2d()
        self.second = nn.Conv2d(4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.drop(torch.relu(self.norm(self.first(x)))))
        return out


@pytest.mark.parametrize("name", list(RELEASES))
def test_dropout_ends_a_chain_in_older_releases(name: str) -> None:
    quantizer = Quantizer(Dropped().eval(), torch.zeros(1, 3, 8, 8), QuantizeOptions(release=name))
    assert len(quantizer.pairs) == (0 if name in RECORDED else 1)
    assert [node.op for node in quantizer.graph.nodes] == [g.INPUT, g.CONV2D, g.RELU, g.CONV2D]
    bias = "Dropped::first.weight.bias" if name == "1.4.1" else "Dropped::first.bias"
    assert bias in quantizer.graph.params


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 4, 3, groups=2)
        self.third = nn.Conv2d(4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.third(self.second(self.first(x)))
        return out


def test_grouped_convolutions_are_paired_from_2_5_on() -> None:
    example = torch.zeros(1, 3, 9, 9)
    pairs = {
        name: [
            pair.second.params["weight"]
            for pair in Quantizer(Grouped(), example, QuantizeOptions(release=name)).pairs
        ]
        for name in ("2.0", "2.5")
    }
    assert pairs == {
        "2.0": ["Grouped::third.weight"],
        "2.5": ["Grouped::second.weight", "Grouped::third.weight"],
    }


class Gated(nn.Module):
    """A softmax at the end and a sigmoid that feeds a product."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return torch.softmax(y * torch.sigmoid(y), 1)


@pytest.mark.parametrize(
    ("release", "sigmoid", "softmax"),
    [
        ("1.4.1", "null", "absent"),
        ("2.0", "fixed", "absent"),
        ("2.5", "fixed", "null"),
        ("3.0", "fixed", "fixed"),
    ],
)
def test_gates_and_softmax(release: str, sigmoid: str, softmax: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = torch.rand(8, 3, 4, 4)
    quantizer = Quantizer(Gated(), images[:1], QuantizeOptions(release=release))
    calibration = quantizer.calibrate([images])
    by_op = {node.op: quantizer.graph.file_name(node) for node in quantizer.graph.nodes}

    def state(op: str) -> str:
        outputs = calibration.info.outputs
        if by_op[op] not in outputs:
            return "absent"
        return "null" if outputs[by_op[op]] is None else "fixed"

    assert (state(g.SIGMOID), state(g.SOFTMAX)) == (sigmoid, softmax)
    calibration.save(tmp_path)
    assert quantizer.load(tmp_path) == calibration.info
    quantized = quantizer.quantized(tmp_path)
    fixes = {name for name in quantized.to_xir().ops if name.endswith("_fix")}
    for op, expected in ((g.SIGMOID, sigmoid), (g.SOFTMAX, softmax)):
        (node,) = (n for n in quantizer.graph.nodes if n.op == op)
        name = quantized.graph.debug_name(node)
        assert (f"{''.join(c if c.isalnum() else '_' for c in name)}_fix" in fixes) == (
            expected == "fixed"
        )


class Averaged(nn.Module):
    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(kernel)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pool(x)
        return out


@pytest.mark.parametrize(
    ("release", "kernel", "kinds"),
    [
        ("1.4.1", 2, ["avgpool2d"]),
        ("1.4.1", 3, ["avgpool2d", "const", "mul"]),
        ("2.0", 2, ["avgpool2d", "const", "mul"]),
    ],
)
def test_average_pools_in_the_xmodel(release: str, kernel: int, kinds: List[str]) -> None:
    images = torch.rand(8, 1, 6, 6)
    quantizer = Quantizer(Averaged(kernel), images[:1], QuantizeOptions(release=release))
    xir = quantizer.quantized(quantizer.calibrate([images])).to_xir()
    assert sorted(op.type for op in xir.ops.values() if op.type not in ("data", "fix")) == kinds


def flattened(release: str) -> Dict[str, str]:
    """The exported operators between the map and the product, and the product's weights."""

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.linear(torch.flatten(x, 1))
            return out

    torch.manual_seed(0)
    images = torch.rand(8, 3, 2, 2)
    quantizer = Quantizer(Flat(), images[:1], QuantizeOptions(release=release))
    quantized = quantizer.quantized(quantizer.calibrate([images]))
    ops = quantized.to_xir().ops.values()
    weights = next(op for op in ops if op.name == "Flat__linear_weight")
    straight = quantized.parameters()["Flat::linear.weight"].tobytes()
    moved = {op.type: op.name for op in ops if op.type in ("transpose", "flatten", "reshape")}
    return {**moved, "weights": "kept" if weights.attrs["data"].value == straight else "moved"}


def test_flattening_in_the_xmodel() -> None:
    assert flattened("1.4.1")["transpose"] == flattened("1.4.1")["flatten"] + "_i0"
    assert flattened("2.0")["transpose"] == "Flat__Flat__input_0_sink_tranpose_0"
    assert flattened("2.5")["transpose"] == "Flat__input_0_sink_transpose_0"
    assert all(flattened(release)["weights"] == "kept" for release in RECORDED)
    assert set(flattened("3.0")) == {"reshape", "weights"}
    assert flattened("3.0")["weights"] == "moved"


# --- adjustments ---


def adjusted(
    release: Release, ops: List[str], positions: List[int], weight: int = 0
) -> Tuple[List[int], List[str]]:
    """Positions after adjustment of a chain of operators, and the notes."""
    graph = QuantizerGraph("Net", release)
    for index, op in enumerate(ops):
        node = Node(
            op, f"input_{index}" if op == g.INPUT else "Net", graph.nodes[-1:], (1, 1, 2, 2)
        )
        node.attrs = {"mode": "nearest"} if op == g.RESIZE else {}
        if op == g.CONV2D:
            node.params = {"weight": "Net::w"}
        graph.nodes.append(node)
    graph.outputs = graph.nodes[-1]
    graph.number()
    found = entries(graph)
    given = {n: p for n, p in zip(graph.nodes, positions) if n in found.filled}
    notes = adjust(graph, found, {"Net::w": weight}, given)
    return [given.get(node, 99) for node in graph.nodes], notes


def test_shift_rules_run_last_before_3_5() -> None:
    # The shift rule lowers the convolution's output from 12 to 5; the resize copies what it sees.
    chain = [g.INPUT, g.CONV2D, g.RESIZE]
    assert adjusted(V3_5, chain, [5, 12, 3])[0] == [5, 5, 5]
    assert adjusted(V3_0, chain, [5, 12, 3])[0] == [5, 5, 12]


def test_gate_rules() -> None:
    assert adjusted(V3_0, [g.INPUT, g.HARDSIGMOID], [-2, 3])[0] == [0, 7]
    assert adjusted(V2_5, [g.INPUT, g.HARDSIGMOID], [-2, 3])[0] == [-2, 7]
    assert adjusted(V3_0, [g.INPUT, g.HARDSWISH], [-2, 12])[0] == [0, 7]
    assert adjusted(V2_5, [g.INPUT, g.HARDSWISH], [-2, 12])[0] == [-2, 12]


def test_an_unfilled_softmax_stops_all_adjustment() -> None:
    chain = [g.INPUT, g.CONV2D, g.SOFTMAX]
    assert adjusted(V2_5, chain, [5, 12, 0])[0][:2] == [5, 12]
    assert adjusted(V2_0, chain, [5, 12, 0])[0][:2] == [5, 5]
    assert adjusted(V1_4_1, [g.INPUT, g.CONV2D, g.SIGMOID], [5, 12, 0])[0][:2] == [5, 5]


def test_steps_of_bias_correction() -> None:
    rates = {name: QuantizeOptions(release=name).rate() for name in RELEASES}
    assert rates == {"1.4.1": 0.05, "2.0": 0.05, "2.5": 0.1, "3.0": 0.05, "3.5": 0.05}
    assert QuantizeOptions(release="2.5", correction_rate=0.05).rate() == 0.05
    assert QuantizeOptions(bias_correction=False).rate() is None
    assert QuantizeOptions().release == "3.0"


def test_reads_without_a_name_for_it(tmp_path: Path) -> None:
    """Pairs of both forms in one file belong to no release."""
    (tmp_path / results.QUANT_INFO).write_text(
        '{"param": {"N::a": [8, 1], "N::b": [[8, 1]]}, "output": {}}'
    )
    with pytest.raises(FormatError, match="quant_info"):
        results.load(tmp_path)


def test_fast_finetune_of_the_oldest_release_is_refused() -> None:
    quantizer = Quantizer(
        nets.ConvBias(), torch.zeros(1, 3, 8, 8), QuantizeOptions(release="1.4.1")
    )
    with pytest.raises(UnsupportedError, match=r"release 1\.4\.1"):
        quantizer.finetune([torch.zeros(8, 3, 8, 8)])


def test_tuned_parameters_are_found_where_the_file_does_not_say(data: Path, tmp_path: Path) -> None:
    recording = golden.recording(MICRO[0], data, Path, "2.0")
    images = recording.inputs("calib").split(golden.BATCH)  # type: ignore[no-untyped-call]
    quantizer = quantizer_of(recording)
    tuned = quantizer.finetune(images[:1])
    calibration = quantizer.calibrate(images, tuned=tuned)
    calibration.save(tmp_path)
    assert results.load(tmp_path).fast_finetuned
    read, direct = quantizer.quantized(tmp_path), quantizer.quantized(calibration)
    for key, value in direct.int8_parameters().items():
        assert np.array_equal(read.int8_parameters()[key], value)
