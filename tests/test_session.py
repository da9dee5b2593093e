"""The session and the artifact: a whole compiled model on pictures."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest

from deepfake_fpga.compile.compiler import compile_graph
from deepfake_fpga.compile.targets import target_by_name
from deepfake_fpga.compile.xir.attributes import int32
from deepfake_fpga.compile.xir.graph import Graph, Op, Subgraph, float32_tensor
from deepfake_fpga.compile.xir.xmodel import read_xmodel, write_xmodel
from deepfake_fpga.errors import (
    DataError,
    DeviceError,
    FormatError,
    MismatchError,
    MissingError,
    UnsupportedError,
)
from deepfake_fpga.inference.artifact import Artifact, artifact_of, batch_of, load_artifact
from deepfake_fpga.inference.cpu_operators import float2fix, run_cpu_operator, sigmoid, softmax
from deepfake_fpga.inference.devices import sim_available
from deepfake_fpga.inference.devices.handmade import GraphBuilder, uynet
from deepfake_fpga.inference.devices.worker import WorkerDevice
from deepfake_fpga.inference.session import Session, first_largest, logit
from deepfake_fpga.preprocessing import Preprocessing, quantization_table, to_codes

from .cards import card_options, for_card

SMALL = Preprocessing(height=112, width=112)
PATH = Path("somewhere") / "YNET.xmodel"


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return artifact_of(uynet(4, size=112), PATH)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (8, 112, 112, 3)).astype(np.uint8)


# -- a genuine model ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def genuine(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded U-YNet of width 8, compiled into a file."""
    quantized = shared / "golden" / "uynet_w8" / "quantize_result" / "UYNet_int.xmodel"
    target = target_by_name("8pe_normal")
    assert target is not None
    path = tmp_path_factory.mktemp("compiled") / "YNET.xmodel"
    write_xmodel(compile_graph(read_xmodel(quantized), target), path)
    return path


@pytest.mark.parametrize("device", ["sim", "reference", "card"])
def test_recorded_pictures_give_the_recorded_answers(
    shared: Path, genuine: Path, device: str, tmp_path: Path
) -> None:
    folder = shared / "golden" / "uynet_w8"
    pictures = np.load(folder / "test_u8.npz")["images"]
    recorded = dict(np.load(folder / "quant_outputs.npz"))
    card = card_options(tmp_path, device="sim") if device == "card" else None
    with Session(load_artifact(genuine), device, threads=1, card=card) as session:
        assert session.batch == 8
        prediction = session.run(pictures)
    logits = recorded["logits"].transpose(0, 2, 3, 1)
    scale = np.abs(logits).max() / np.abs(prediction.logits.astype(np.float64)).max()
    assert np.array_equal(prediction.logits * np.float32(scale), logits)
    assert np.array_equal(prediction.mask, np.argmax(recorded["logits"], axis=1))
    assert prediction.mask.dtype == np.uint8
    assert prediction.real.dtype == np.float32
    assert np.abs(prediction.real - recorded["cls"][:, 0]).max() <= 1e-6
    # What one code is worth comes from the file, not from the comparison above.
    assert prediction.scale == scale
    assert prediction.score is not None
    assert prediction.score.dtype == np.float64
    assert np.array_equal(prediction.score % 2.0**-8, np.zeros(len(pictures)))
    assert np.abs(1 / (1 + np.exp(-prediction.score)) - recorded["cls"][:, 0]).max() <= 1e-6


def test_an_artifact_says_what_it_is(genuine: Path) -> None:
    artifact = load_artifact(genuine)
    assert artifact.batch == 8
    assert artifact.target == "DPUCVDX8H_ISA1_F2W2_8PE"
    assert artifact.preprocessing == Preprocessing()
    mask = artifact.graph.producer(artifact.mask)
    classifier = artifact.graph.producer(artifact.classifier)
    assert mask is not None
    assert classifier is not None
    assert tuple(mask.tensor.dims) == (1, 224, 224, 2)
    assert classifier.type == "sigmoid"
    assert "shape" in artifact.reason


def test_without_a_sigmoid_to_look_behind_the_score_is_undone() -> None:
    real = np.array([0, 1e-30, 0.25, 0.5, 0.75, 1], np.float32)
    score = logit(real)
    assert score.dtype == np.float64
    assert np.isfinite(score).all()
    assert (np.diff(score) > 0).all()
    np.testing.assert_allclose(score[2:5], [-np.log(3), 0, np.log(3)])
    np.testing.assert_allclose(1 / (1 + np.exp(-score)), real, rtol=1e-6, atol=1e-37)


# -- batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["sim", "reference", "card"])
def test_slot_k_is_what_a_single_run_gives(images: np.ndarray, device: str, tmp_path: Path) -> None:
    artifact = artifact_of(for_card(uynet(4, size=112)), PATH)
    count = 2 if device == "reference" else 8
    card = card_options(tmp_path, device="sim") if device == "card" else None
    with Session(artifact, device, threads=1, card=card) as session:
        together = session.run(images[:count])
        assert together.mask.shape == (count, 112, 112)
        assert together.mask.any()
        assert not together.mask.all()
        for slot in {0, count // 2, count - 1}:
            alone = session.run(images[slot : slot + 1])
            assert alone.mask.shape == (1, 112, 112)
            assert alone.real.shape == (1,)
            assert np.array_equal(alone.mask[0], together.mask[slot])
            assert np.array_equal(alone.logits[0], together.logits[slot])
            assert alone.real[0] == together.real[slot]


def test_one_thread_submits_and_another_waits(artifact: Artifact, images: np.ndarray) -> None:
    with Session(artifact, "sim", threads=1) as session:
        expected = [session.run(images[k : k + 1]).logits for k in range(8)]
        tickets: List[int] = []
        results: Dict[int, np.ndarray] = {}
        ready = threading.Semaphore(0)

        def wait() -> None:
            for k in range(8):
                assert ready.acquire(timeout=60)
                results[k] = session.result(tickets[k]).logits

        waiter = threading.Thread(target=wait)
        waiter.start()
        for k in range(8):
            tickets.append(session.submit(images[k : k + 1]))
            ready.release()
        waiter.join(timeout=60)
        assert len(results) == 8
        assert all(np.array_equal(results[k], expected[k]) for k in range(8))
        with pytest.raises(DeviceError, match="no batch under ticket"):
            session.result(tickets[0])


def test_time_and_pictures_are_counted(artifact: Artifact, images: np.ndarray) -> None:
    with Session(artifact, "sim", threads=1) as session:
        session.run(images[:3])
        session.run(images[:5])
        timings = session.timings
    assert (timings.batches, timings.images) == (2, 8)
    assert timings.device > 0
    assert timings.prepare > 0


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((0, 112, 112, 3), np.uint8),
        np.zeros((9, 112, 112, 3), np.uint8),
        np.zeros((1, 224, 224, 3), np.uint8),
        np.zeros((1, 112, 112, 3), np.float32),
        np.zeros((112, 112, 3), np.uint8),
    ],
)
def test_pictures_of_another_form_are_refused(artifact: Artifact, wrong: np.ndarray) -> None:
    with Session(artifact, "null") as session, pytest.raises(DataError):
        session.submit(wrong)


def test_a_closed_session_is_closed(artifact: Artifact, images: np.ndarray) -> None:
    session = Session(artifact, "null")
    session.close()
    session.close()
    with pytest.raises(DeviceError, match="closed"):
        session.submit(images)


def test_the_device_taken_is_named_with_the_reason(artifact: Artifact) -> None:
    with Session(artifact) as session:
        assert session.device_name == ("sim" if sim_available()[0] else "reference")
        assert "vart" in session.reason
        assert ("weights" if sim_available()[0] else "onnxruntime") in session.reason
    with Session(artifact, "null") as session:
        assert session.device_name == "null"


def test_a_failing_device_is_an_error_of_the_toolkit(
    artifact: Artifact, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: WorkerDevice, batch: Any) -> Any:
        raise MemoryError("no room")

    with Session(artifact, "reference") as session:
        monkeypatch.setattr(type(session._model.devices[0]), "compute", fail)
        ticket = session.submit(images)
        with pytest.raises(DeviceError, match="MemoryError: no room"):
            session.result(ticket)


# -- several subgraphs, and the host between them -----------------------------------------------


def chain() -> Graph:
    """Two DPU subgraphs with a pool, a rescaling in float and a transpose on the host between."""
    build = GraphBuilder()
    source = build.input((1, 112, 112, 3), 6)
    weights = np.array([[1, 0, 0], [0, 1, 0]], np.int8).reshape(2, 1, 1, 3)
    conv = build.convolution("conv", source, weights, None, (0, 0, 6), (1, 112, 112, 2))
    first = build.output(conv)
    values = build.on_host("values", "fix2float", (1, 112, 112, 2), first, fix_point=6)
    turned = build.on_host("turned", "transpose", (1, 112, 112, 2), values, order=(0, 2, 1, 3))
    build.add("codes", "float2fix", (1, 112, 112, 2), 5, [turned])
    build.graph.op("codes").attrs["fix_point"] = int32(5)
    side = build.add(
        "side", "pool-fix", (1, 1, 1, 2), 5, ["codes"], kernel=(112, 112), stride=(1, 1), type="MAX"
    )
    ones = np.ones((1, 1, 1, 2), np.int8)
    verdict = build.convolution("verdict", side, ones, None, (0, 0, 5), (1, 1, 1, 1))
    flat = build.add("flat", "reshape-fix", (1, 1), 5, [verdict], shape=(1, 1))
    build.on_host("real", "fix2float", (1, 1), build.output(flat), fix_point=5)
    build.on_host("probability", "sigmoid", (1, 1), "real")
    build.on_host("mask", "fix2float", (1, 112, 112, 2), "codes", fix_point=5)
    graph = build.finish()
    dpu, cpu = graph.subgraphs("DPU")[0], graph.subgraphs("CPU")[0]
    middle = ("values", "turned", "codes", "side")
    late = ("verdict_weight", "verdict", "flat", "flat_download_0")
    second = Subgraph("second", dpu.attrs, [n for n in dpu.ops if n in late])
    between = Subgraph("between", cpu.attrs, [n for n in graph.ops if n in middle])
    dpu.ops = [n for n in dpu.ops if n not in middle + late]
    cpu.ops = [n for n in cpu.ops if n not in middle]
    graph.root.children = [cpu, second, between, dpu, *graph.subgraphs("USER")]
    return graph


@pytest.mark.parametrize("device", ["sim", "reference", "card"])
def test_subgraphs_run_in_the_order_of_their_tensors(
    device: str, images: np.ndarray, tmp_path: Path
) -> None:
    card = card_options(tmp_path) if device == "card" else None
    with Session(artifact_of(for_card(chain()), PATH), device, threads=1, card=card) as session:
        prediction = session.run(images[:3])
    values = images[:3, :, :, :2].astype(np.float32) / np.float32(255)
    codes = np.floor(np.minimum(np.floor(values * 64 + 0.5), 127) / 2 + 0.5).transpose(0, 2, 1, 3)
    assert np.array_equal(prediction.logits, codes)
    assert np.array_equal(prediction.mask, codes.argmax(axis=-1))
    total = np.minimum(codes.max(axis=(1, 2)).sum(axis=-1), 127)
    assert np.allclose(prediction.real, 1 / (1 + np.exp(-total / 32)), atol=1e-6)


def test_a_host_operator_without_a_rule_is_refused_on_opening() -> None:
    graph = chain()
    graph.op("turned").type = "PPScatterV2"
    with pytest.raises(UnsupportedError, match="PPScatterV2"):
        Session(artifact_of(graph, PATH), "null")


def test_an_unread_operator_without_a_rule_does_not_matter(images: np.ndarray) -> None:
    graph = chain()
    extra = Op("extra", "somebody's own", float32_tensor("extra", (1, 5)))
    extra.inputs = {"input": ("values",)}
    graph.add(extra)
    graph.subgraphs("CPU")[0].ops.append("extra")
    with Session(artifact_of(graph, PATH), "null") as session:
        assert session.run(images).mask.shape == (8, 112, 112)
    with pytest.raises(UnsupportedError, match="own"):
        run_cpu_operator(graph, extra, {})


# -- host operators -----------------------------------------------------------------------------


@pytest.mark.torch
def test_sigmoid_and_softmax_are_torchs() -> None:
    torch = pytest.importorskip("torch")
    x = np.linspace(-120, 120, 4001, dtype=np.float32).reshape(1, -1)
    assert np.abs(sigmoid(x) - torch.sigmoid(torch.from_numpy(x)).numpy()).max() <= 1e-6
    assert sigmoid(x).dtype == np.float32
    rows = np.random.default_rng(0).normal(0, 30, (5, 7)).astype(np.float32)
    theirs = torch.softmax(torch.from_numpy(rows), dim=-1).numpy()
    assert np.abs(softmax(rows) - theirs).max() <= 1e-6


@pytest.mark.parametrize("divisor", [255.0, 256.0, 1.0])
@pytest.mark.parametrize("fix_point", [-1, 0, 4, 5, 6, 7, 8])
def test_codes_are_those_of_the_table_at_every_place(fix_point: int, divisor: float) -> None:
    table = quantization_table(fix_point, Preprocessing(scale_divisor=divisor))
    for count in (1, 31, 64, 256, 4097):
        pixels = (np.arange(3 * count) * 7 % 256).astype(np.uint8).reshape(1, count, 1, 3)
        found = to_codes(pixels, table)
        assert found.dtype == np.int8
        assert np.array_equal(found, table[pixels])


def test_conversion_to_codes_rounds_up_and_saturates() -> None:
    values = np.array([0.5, 1.5, -0.5, -2.5, 1e9, -np.inf, np.nan], np.float32)
    assert float2fix(values, 0).tolist() == [1, 2, 0, -2, 127, -128, 0]
    assert float2fix(values, 0, signed=False).tolist() == [1, 2, 0, 0, 255, 0, 0]


def test_the_first_of_equal_logits_wins() -> None:
    two = np.array([[[[3, 3], [2, 3], [3, 2]]]], np.int8)
    assert first_largest(two).tolist() == [[[0, 1, 0]]]
    three = np.array([[[[1, 5, 5], [-1, -2, -1]]]], np.int8)
    assert first_largest(three).tolist() == [[[1, 0]]]


def test_the_largest_of_every_pair_of_codes_is_found_however_they_lie() -> None:
    first, second = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128))
    pairs = np.stack([first, second], -1).astype(np.int8)[None]
    wanted = (second > first)[None]
    assert np.array_equal(first_largest(pairs), wanted)
    assert np.array_equal(first_largest(np.asfortranarray(pairs)), wanted)
    assert np.array_equal(first_largest(pairs.astype(np.float32)), wanted)
    assert first_largest(pairs).dtype == np.uint8


# -- the float device ---------------------------------------------------------------------------


@pytest.mark.torch
def test_the_float_device_runs_the_checkpoint(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from deepfake_fpga.quantize.model import UYNet

    torch.manual_seed(0)
    model = UYNet(width=4).eval()
    checkpoint = tmp_path / "model.pth"
    torch.save(model.state_dict(), checkpoint)
    pictures = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3)).astype(np.uint8)
    compiled = artifact_of(uynet(4), PATH)
    with Session(compiled, "float", threads=1, checkpoint=checkpoint) as session:
        prediction = session.run(pictures)
    with torch.no_grad():
        x = torch.from_numpy(pictures.transpose(0, 3, 1, 2) / np.float32(255))
        logits, real = model(x)
    assert np.allclose(prediction.logits, logits.numpy().transpose(0, 2, 3, 1), atol=1e-4)
    assert np.allclose(prediction.real, real.numpy()[:, 0], atol=1e-5)
    assert prediction.mask.shape == (2, 224, 224)


def test_the_float_device_needs_a_checkpoint(artifact: Artifact) -> None:
    with pytest.raises(MissingError, match="checkpoint"):
        Session(artifact, "float")


# -- artifacts ----------------------------------------------------------------------------------


def test_roles_and_preprocessing_come_from_the_manifest(tmp_path: Path) -> None:
    graph = uynet(4, size=112)
    path = tmp_path / "YNET.xmodel"
    write_xmodel(graph, path)
    manifest = {
        "preprocessing": SMALL.to_json(),
        "outputs": {"mask": "outc_download_0_fix", "classifier": "sigmoid"},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    artifact = load_artifact(path)
    assert (artifact.mask, artifact.classifier) == ("outc_download_0_fix", "sigmoid")
    assert artifact.preprocessing == SMALL
    assert "manifest" in artifact.reason
    with Session(artifact, "null") as session:
        assert session.run(np.zeros((1, 112, 112, 3), np.uint8)).mask.shape == (1, 112, 112)


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({"outputs": {"mask": "nowhere", "classifier": "sigmoid"}}, "not in the model"),
        ({"outputs": {"mask": "mask"}}, "'classifier' is not in the model"),
        ({"outputs": ["mask"]}, "not an object"),
        ({"preprocessing": Preprocessing().to_json()}, "does not fit its preprocessing"),
        ({"preprocessing": {"flavour": 1}}, "does not know"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(manifest: Dict[str, Any], words: str) -> None:
    with pytest.raises(MismatchError, match=words):
        artifact_of(uynet(4, size=112), PATH, manifest)


def test_a_manifest_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "YNET.xmodel"
    write_xmodel(uynet(4, size=112), path)
    (tmp_path / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(FormatError, match="no JSON"):
        load_artifact(path)


def test_outputs_of_other_shapes_are_listed() -> None:
    build = GraphBuilder()
    build.output(build.add("x", "reshape-fix", (1, 12), 0, [build.input((1, 2, 2, 3), 0)]))
    with pytest.raises(MismatchError, match=r"x_download_0_fix \[1, 12\]"):
        artifact_of(build.finish(), PATH)


def test_a_quantized_model_is_refused_with_the_command_to_compile_it(shared: Path) -> None:
    path = shared / "golden" / "uynet_w8" / "quantize_result" / "UYNet_int.xmodel"
    with pytest.raises(MismatchError, match="not compiled") as error:
        load_artifact(path)
    assert "deepfake-fpga compile -x" in error.value.next_step


def test_a_model_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        load_artifact(tmp_path / "none.xmodel")


@pytest.mark.parametrize(
    ("dpu_name", "batch"),
    [
        ("DPUCVDX8H_ISA1_F2W2_8PE", 8),
        ("DPUCVDX8H_ISA1_F2W4_6PE_aieDWC", 6),
        ("DPUCVDX8H_ISA1_F2W4_4PE", 4),
        ("DPUCVDX8H_ISA1_F2W2", 8),
    ],
)
def test_the_batch_is_in_the_name_of_the_dpu(dpu_name: str, batch: int) -> None:
    build = GraphBuilder(dpu_name=dpu_name)
    build.output(build.input((1, 2, 2, 3), 0))
    assert batch_of(build.finish().subgraphs("DPU")[0]) == batch
