"""Checkpoints: what is read, what is refused and by which name, and that nothing is executed."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepfake_fpga.errors import DataError, FormatError, MismatchError, MissingError  # noqa: E402
from deepfake_fpga.quantize import tensor_file  # noqa: E402
from deepfake_fpga.quantize.checkpoint import load_checkpoint  # noqa: E402
from deepfake_fpga.quantize.model import UYNet  # noqa: E402

pytestmark = pytest.mark.torch

LOAD = torch.load
State = Dict[str, Any]


@pytest.fixture
def state() -> State:
    torch.manual_seed(0)
    return dict(UYNet(width=2).state_dict())


def save(content: Any, path: Path, **options: Any) -> Path:
    torch.save(content, str(path), **options)
    return path


@pytest.fixture(params=["weights_only", "restricted"])
def unpickler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test with torch's safe loading and with ours for releases that have none."""
    if request.param == "restricted":

        def old_load(file: str, map_location: str, pickle_module: Any) -> Any:
            return LOAD(
                file, map_location=map_location, pickle_module=pickle_module, weights_only=False
            )

        monkeypatch.setattr(tensor_file.torch, "load", old_load)
    return str(request.param)


@pytest.mark.parametrize("bilinear", [False, True])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_width_and_variant_come_from_the_shapes(
    tmp_path: Path, width: int, bilinear: bool, unpickler: str
) -> None:
    model = UYNet(width=width, bilinear=bilinear)
    found = load_checkpoint(save(model.state_dict(), tmp_path / "a.pth"))
    assert (found.width, found.bilinear) == (width, bilinear)
    assert not found.model.training
    for key, value in model.state_dict().items():
        assert torch.equal(found.model.state_dict()[key], value), key


def test_wrappers_prefixes_and_the_unused_block(
    tmp_path: Path, state: State, unpickler: str
) -> None:
    state["down5.maxpool_conv.1.double_conv.0.weight"] = torch.zeros(64, 32, 3, 3)
    wrapped = {
        "epoch": 7,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
        "state_dict": OrderedDict((f"module.{key}", value) for key, value in state.items()),
    }
    found = load_checkpoint(save(wrapped, tmp_path / "a.pt"))
    assert found.dropped == ("down5.maxpool_conv.1.double_conv.0.weight",)
    assert any("down5" in note for note in found.notes)
    assert any("'state_dict'" in note for note in found.notes)
    assert found.metadata == {"epoch": 7}
    weight = found.model.state_dict()["up1.up.weight"]
    assert torch.equal(weight, state["up1.up.weight"])


def test_the_state_dict_is_preferred_to_other_copies(tmp_path: Path, state: State) -> None:
    other = {key: torch.zeros_like(value) for key, value in state.items()}
    found = load_checkpoint(save({"ema": other, "model": state}, tmp_path / "a.pth"))
    assert torch.equal(found.model.outc.conv.bias, state["outc.conv.bias"])


def test_legacy_pickle_and_missing_counters(tmp_path: Path, state: State, unpickler: str) -> None:
    kept = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    path = save(kept, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(str(path))
    found = load_checkpoint(path)
    assert torch.equal(found.model.linear_1.weight, state["linear_1.weight"])


def test_half_precision_is_converted_and_said(tmp_path: Path, state: State) -> None:
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    found = load_checkpoint(save(half, tmp_path / "a.pth"))
    assert found.model.linear_1.weight.dtype == torch.float32
    assert torch.equal(found.model.linear_1.weight, state["linear_1.weight"].half().float())
    assert any("float16" in note for note in found.notes)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_safetensors(tmp_path: Path, state: State, dtype: str) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    kind = getattr(torch, dtype)
    content = {k: v.to(kind) if v.is_floating_point() else v for k, v in state.items()}
    metadata = {"epoch": "3", "preprocessing": json.dumps({"margin": 0.25})}
    save_file(content, str(tmp_path / "a.safetensors"), metadata=metadata)
    found = load_checkpoint(tmp_path / "a.safetensors")
    for key, value in content.items():
        assert torch.equal(found.model.state_dict()[key], value.float()), key
    assert found.metadata["epoch"] == "3"
    assert found.preprocessing.margin == 0.25
    raw = (tmp_path / "a.safetensors").read_bytes()
    for cut in (4, 12, 200, len(raw) - 1):
        (tmp_path / "b.safetensors").write_bytes(raw[:cut])
        with pytest.raises(FormatError, match=r"truncated|complete"):
            load_checkpoint(tmp_path / "b.safetensors")


class Malicious:
    """Creates a file when it is unpickled the ordinary way."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_not_run(
    tmp_path: Path, state: State, unpickler: str, zipped: bool
) -> None:
    target = tmp_path / "owned"
    content = {"state_dict": state, "extra": Malicious(target)}
    path = save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(FormatError, match="would run code") as caught:
        load_checkpoint(path)
    assert "mkdir" in caught.value.evidence
    assert not target.exists()
    LOAD(str(path), weights_only=False)
    assert target.exists(), "the trap itself must work, or this test shows nothing"


def test_a_bare_pickle_is_refused_and_not_run(tmp_path: Path, unpickler: str) -> None:
    target = tmp_path / "owned"
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Malicious(target)))
    with pytest.raises(FormatError):
        load_checkpoint(tmp_path / "a.pth")
    assert not target.exists()


def test_a_pickled_model_is_refused_naming_its_class(tmp_path: Path, unpickler: str) -> None:
    with pytest.raises(FormatError, match="would run code") as caught:
        load_checkpoint(save(UYNet(width=1), tmp_path / "a.pth"))
    assert "deepfake_fpga.quantize.model.UYNet" in caught.value.evidence
    assert "state_dict" in caught.value.next_step


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "a.pt"))
    with pytest.raises(FormatError, match="TorchScript"):
        load_checkpoint(tmp_path / "a.pt")


def test_another_model_is_refused_by_its_keys(tmp_path: Path) -> None:
    path = save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "a.pth")
    with pytest.raises(MismatchError, match=r"no inc\.double_conv") as caught:
        load_checkpoint(path)
    assert "weight [2, 3]" in caught.value.evidence


def test_what_does_not_fit_is_named(tmp_path: Path, state: State) -> None:
    del state["linear_2.bias"]
    state["head.weight"] = torch.zeros(3)
    state["linear_1.weight"] = torch.zeros(16, 33)
    with pytest.raises(MismatchError, match="width 2") as caught:
        load_checkpoint(save(state, tmp_path / "a.pth"))
    evidence = caught.value.evidence
    assert "1 missing: linear_2.bias" in evidence
    assert "1 unexpected: head.weight" in evidence
    assert "linear_1.weight is [16, 33], should be [16, 32]" in evidence


@pytest.mark.parametrize(
    ("key", "shape"),
    [("inc.double_conv.0.weight", [2, 1, 3, 3]), ("outc.conv.weight", [5, 2, 1, 1])],
)
def test_other_channels_or_classes_are_refused(
    tmp_path: Path, state: State, key: str, shape: List[int]
) -> None:
    state[key] = torch.zeros(shape)
    with pytest.raises(MismatchError, match="RGB and two classes") as caught:
        load_checkpoint(save(state, tmp_path / "a.pth"))
    assert f"{key} is {shape}" in caught.value.evidence


def test_integer_weights_are_refused(tmp_path: Path, state: State) -> None:
    state["linear_1.weight"] = state["linear_1.weight"].to(torch.int8)
    with pytest.raises(MismatchError) as caught:
        load_checkpoint(save(state, tmp_path / "a.pth"))
    assert "linear_1.weight is torch.int8" in caught.value.evidence


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused(
    tmp_path: Path, state: State, value: float
) -> None:
    state["up2.conv.double_conv.3.weight"][0, 0, 0, 0] = value
    with pytest.raises(DataError) as caught:
        load_checkpoint(save(state, tmp_path / "a.pth"))
    assert "up2.conv.double_conv.3.weight has 1 NaN or infinite" in caught.value.evidence


def test_negative_variances_are_refused(tmp_path: Path, state: State) -> None:
    state["inc.double_conv.1.running_var"][1] = -1.0
    with pytest.raises(DataError) as caught:
        load_checkpoint(save(state, tmp_path / "a.pth"))
    assert "inc.double_conv.1.running_var" in caught.value.evidence


def test_files_that_are_something_else_are_named(tmp_path: Path, state: State) -> None:
    whole = save(state, tmp_path / "whole.pth").read_bytes()
    with zipfile.ZipFile(str(tmp_path / "zip.pth"), "w") as archive:
        archive.writestr("weights.npy", b"")
    cases = {
        "pointer.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git-LFS"),
        "page.pth": (b"<!DOCTYPE html><html></html>", "HTML"),
        "empty.pth": (b"", "empty"),
        "cut.pth": (whole[: len(whole) // 2], "truncated"),
        "keras.pth": (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
        "text.pth": (b"hello, this is a text file", "neither"),
        "zip.pth": ((tmp_path / "zip.pth").read_bytes(), "without a state_dict"),
    }
    for name, (content, word) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FormatError, match=word):
            load_checkpoint(tmp_path / name)
    with pytest.raises(MissingError):
        load_checkpoint(tmp_path / "absent.pth")


def test_a_damaged_legacy_file_is_named(tmp_path: Path, state: State, unpickler: str) -> None:
    path = save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for cut in (10, len(whole) // 3, len(whole) - 100):
        path.write_bytes(whole[:cut])
        with pytest.raises(FormatError, match="truncated or damaged"):
            load_checkpoint(path)


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {"a": 1}])
def test_content_without_a_state_dict(tmp_path: Path, content: Any) -> None:
    with pytest.raises((FormatError, MismatchError), match=r"no state_dict|not a U-YNet"):
        load_checkpoint(save(content, tmp_path / "a.pth"))


def test_the_recorded_network_is_read(shared: Path, tmp_path: Path) -> None:
    """The vendor quantizer's recorded weights, and the float outputs it recorded for them."""
    case = shared / "golden" / "uynet_w8"
    arrays = np.load(str(case / "weights.npz"))
    weights = {key: torch.from_numpy(arrays[key].copy()) for key in arrays.files}
    found = load_checkpoint(save(weights, tmp_path / "w8.pth"))
    assert (found.width, found.bilinear) == (8, False)
    picture = np.load(str(case / "test_u8.npz"))
    recorded = np.load(str(case / "float_outputs.npz"))
    images = picture[picture.files[0]][:1]
    if images.shape[-1] == 3:
        images = images.transpose(0, 3, 1, 2)
    x = torch.from_numpy(images.astype(np.float32) / np.float32(255))
    logits, real = found.model(x)
    np.testing.assert_allclose(logits.numpy(), recorded["logits"][:1], atol=1e-4)
    np.testing.assert_allclose(real.numpy(), recorded["cls"][:1], atol=1e-5)
