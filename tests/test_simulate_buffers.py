"""Which memory the drop-in vart reads and writes, and what it makes of the element types."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
import pytest

from deepfake_fpga.deploy.simulate.buffers import bind, host_buffer, truncated
from deepfake_fpga.inference.devices.base import TensorInfo

from . import simulated_card
from .simulated_card import (
    MAIN,
    SIDE,
    aborts,
    expected,
    outputs_of,
    pictures,
    run,
)

host, vart, options = simulated_card.host, simulated_card.vart, simulated_card.options
subgraph, runner = simulated_card.subgraph, simulated_card.runner


# -- buffers ------------------------------------------------------------------------------------


def test_shapes_are_not_looked_at(runner: Any) -> None:
    codes = pictures()
    flat, grid = np.empty(8 * 6 * 5 * 4, np.int8), np.empty((30, 16), np.int8)
    longer = np.concatenate([codes.reshape(-1), np.zeros(5, np.int8)])
    assert run(runner, (longer,), (flat, grid)) == 0
    np.testing.assert_array_equal(flat, expected(codes)[MAIN].reshape(-1))
    np.testing.assert_array_equal(grid.reshape(-1), expected(codes)[SIDE].reshape(-1))


def test_a_longer_output_is_left_as_it_was_behind_the_batch(runner: Any) -> None:
    longer = np.full(8 * 6 * 5 * 4 + 9, 55, np.int8)
    run(runner, [pictures()], [longer, outputs_of(runner)[1]])
    np.testing.assert_array_equal(longer[:-9], expected(pictures())[MAIN].reshape(-1))
    assert set(longer[-9:]) == {55}


def test_strided_and_fortran_arrays_are_misread_without_a_word(runner: Any) -> None:
    base = np.random.default_rng(1).integers(-128, 128, (8, 6, 5, 4)).astype(np.int8)
    taken = base.reshape(-1)[: 8 * 6 * 5 * 3].reshape(8, 6, 5, 3)
    outputs = outputs_of(runner)
    run(runner, [base[..., :3]], outputs)
    np.testing.assert_array_equal(outputs[0], expected(taken)[MAIN])
    fortran = np.asfortranarray(pictures())
    run(runner, [fortran], outputs)
    taken = fortran.ravel(order="K").reshape(8, 6, 5, 3)
    np.testing.assert_array_equal(outputs[0], expected(taken)[MAIN])
    assert (taken != pictures()).any()


def test_a_step_backwards_is_followed_forwards(runner: Any) -> None:
    base = np.random.default_rng(2).integers(-128, 128, (9, 90)).astype(np.int8)
    outputs = outputs_of(runner)
    run(runner, [base[:, ::-1]], outputs)
    taken = base.reshape(-1)[89 : 89 + 720].reshape(8, 6, 5, 3)
    np.testing.assert_array_equal(outputs[0], expected(taken)[MAIN])


def test_strided_outputs_are_written_as_if_contiguous(runner: Any) -> None:
    base = np.full((8, 6, 5, 8), 99, np.int8)
    run(runner, [pictures()], [base[..., ::2], outputs_of(runner)[1]])
    truth = expected(pictures())[MAIN].reshape(-1)
    np.testing.assert_array_equal(base.reshape(-1)[: truth.size], truth)
    assert set(base.reshape(-1)[truth.size :]) == {99}


def test_other_buffer_objects(runner: Any) -> None:
    codes = pictures()
    given = array.array("b", codes.tobytes())
    main = memoryview(bytearray(8 * 6 * 5 * 4)).cast("b")
    side = array.array("b", bytes(8 * 6 * 5 * 2))
    assert run(runner, [given], [main, side]) == 0
    assert bytes(main) == expected(codes)[MAIN].tobytes()
    assert side.tobytes() == expected(codes)[SIDE].tobytes()


@pytest.mark.parametrize(
    "dtype", ["uint8", "bool", "int32", "int64", "float16", "float64", ">f4", ">i2", "uint16"]
)
def test_other_element_types_abort(runner: Any, dtype: str) -> None:
    with aborts("", "unsupported data type"):
        runner.execute_async([np.zeros((8, 6, 5, 3), dtype)], outputs_of(runner))
    outputs = [outputs_of(runner)[0], np.zeros((8, 6, 5, 2), dtype)]
    with aborts("", "unsupported data type"):
        runner.execute_async([pictures()], outputs)


def test_bytearrays_abort_and_bytes_are_a_buffer_error(runner: Any) -> None:
    with aborts("", "unsupported data type"):
        runner.execute_async([bytearray(720)], outputs_of(runner))
    with pytest.raises(BufferError):
        runner.execute_async([bytes(720)], outputs_of(runner))


def test_read_only_arrays_are_refused_even_as_inputs(runner: Any) -> None:
    codes = pictures()
    codes.setflags(write=False)
    with pytest.raises(ValueError, match="buffer source array is read-only"):
        runner.execute_async([codes], outputs_of(runner))
    outputs = outputs_of(runner)
    outputs[1].setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        runner.execute_async([pictures()], outputs)


@pytest.mark.parametrize("wrong", [None, 3, "abc", {}, [None], [[1, 2]], [3]])
def test_what_is_no_list_of_buffers_is_a_type_error(runner: Any, wrong: Any) -> None:
    with pytest.raises(TypeError, match="execute_async"):
        runner.execute_async(wrong, outputs_of(runner))
    with pytest.raises(TypeError, match="execute_async"):
        runner.execute_async([pictures()], wrong)


def test_a_bare_array_is_the_list_of_its_rows(vart: Any, subgraph: Any, runner: Any) -> None:
    with aborts("VART_TENSOR_BUFFER_INVALID", "8 input buffers for 1 tensors"):
        runner.execute_async(pictures(), outputs_of(runner))
    one = vart.Runner.create_runner(subgraph, "ref")
    outputs = outputs_of(one)
    assert one.wait(one.execute_async(pictures(1), outputs)) == 0
    np.testing.assert_array_equal(outputs[0], expected(pictures(1))[MAIN])


def test_the_number_of_buffers(runner: Any) -> None:
    outputs = outputs_of(runner)
    with aborts("VART_TENSOR_BUFFER_INVALID"):
        runner.execute_async([], outputs)
    with aborts("VART_TENSOR_BUFFER_INVALID"):
        runner.execute_async([pictures()], [*outputs, outputs[0]])
    with aborts("VART_TENSOR_BUFFER_INVALID"):
        runner.execute_async([pictures()], [])
    assert run(runner, [pictures()], outputs[:1]) == 0
    np.testing.assert_array_equal(outputs[0], expected(pictures())[MAIN])
    assert set(outputs[1].reshape(-1)) == {77}


def test_an_input_cannot_be_left_out() -> None:
    infos = [TensorInfo("a", (2, 3), 4), TensorInfo("b", (2, 3), 4)]
    one = host_buffer(np.zeros((2, 3), np.int8))
    with aborts("VART_TENSOR_BUFFER_INVALID", "1 input buffers for 2 tensors"):
        bind([one], infos, "input")
    assert [bound.info.name for bound in bind([one], infos, "output")] == ["a"]


@pytest.mark.parametrize(
    "small",
    [
        np.zeros((7, 6, 5, 3), np.int8),
        np.zeros(0, np.int8),
        np.zeros((8, 6, 5, 3), np.int8)[3:],
        np.zeros(720, np.int8)[::-1],
        np.zeros(100, np.float32),
    ],
    ids=["short", "empty", "part", "backwards", "float"],
)
def test_memory_beyond_a_buffer_is_never_touched(runner: Any, small: np.ndarray) -> None:
    with aborts("VART_TENSOR_BUFFER_INVALID", "image_fix.* is too small"):
        runner.execute_async([small], outputs_of(runner))
    with aborts("VART_TENSOR_BUFFER_INVALID", "main_download_0_fix.* is too small"):
        runner.execute_async([pictures()], [small, outputs_of(runner)[1]])


def test_inputs_may_change_once_the_job_is_begun(runner: Any) -> None:
    codes = pictures()
    outputs = outputs_of(runner)
    job = runner.execute_async([codes], outputs)
    codes[:] = 0
    runner.wait(job)
    np.testing.assert_array_equal(outputs[0], expected(pictures())[MAIN])


STRICT = {
    "shape": (pictures().reshape(8, -1), "is \\[8, 90\\]"),
    "layout": (np.asfortranarray(pictures()), "not C-contiguous"),
    "type": (np.zeros((8, 6, 5, 3), np.int16), "int16"),
    "longer": (pictures(9), "is \\[9, 6, 5, 3\\]"),
}


@pytest.mark.parametrize("case", sorted(STRICT))
def test_strict_buffers_abort_where_the_genuine_runner_misreads(
    vart: Any, subgraph: Any, options: Any, case: str
) -> None:
    options(strict_buffers=True)
    runner = vart.Runner.create_runner(subgraph, "run")
    wrong, text = STRICT[case]
    with aborts("VART_TENSOR_BUFFER_INVALID", f"image_fix.*{text}"):
        runner.execute_async([wrong], outputs_of(runner))
    with aborts("VART_TENSOR_BUFFER_INVALID", "1 output buffers for 2"):
        runner.execute_async([pictures()], outputs_of(runner)[:1])
    outputs = outputs_of(runner, np.float32)
    assert run(runner, [pictures()], outputs) == 0
    np.testing.assert_array_equal(outputs[1], expected(pictures())[SIDE] / np.float32(8))


# -- conversion ---------------------------------------------------------------------------------

# Values of a tensor with five fraction bits, and the codes the genuine runner makes of them.
TRUNCATED = [
    (1.0, 32),
    (0.99, 31),
    (-0.99, -31),
    (0.02, 0),
    (-0.02, 0),
    (3.99, 127),
    (4.03125, -127),
    (50.0, 64),
    (-4.0, -128),
    (-4.04, 127),
    (float("nan"), 0),
    (float("inf"), 0),
    (-float("inf"), 0),
    (1e30, 0),
]
ROUNDED = [(1.0, 32), (0.99, 32), (-0.99, -32), (0.015625, 1), (-0.015625, 0), (4.03125, 127)]
ROUNDED += [(50.0, 127), (-50.0, -128), (float("nan"), 0)]


@pytest.mark.parametrize(
    ("rounding", "pairs"), [("truncate", TRUNCATED), ("round", ROUNDED)], ids=["truncate", "round"]
)
def test_floats_become_codes(
    vart: Any, subgraph: Any, options: Any, rounding: str, pairs: Any
) -> None:
    options(rounding=rounding)
    runner = vart.Runner.create_runner(subgraph, "run")
    values = np.resize(np.array([value for value, _ in pairs], np.float32), (8, 6, 5, 3))
    codes = np.resize(np.array([code for _, code in pairs], np.int8), (8, 6, 5, 3))
    outputs = outputs_of(runner)
    run(runner, [values], outputs)
    truth = expected(codes)
    np.testing.assert_array_equal(outputs[0], truth[MAIN])
    np.testing.assert_array_equal(outputs[1], truth[SIDE])


def test_the_one_that_wraps_at_seven_fraction_bits() -> None:
    # The worked examples of the observed module: 8.0625 and 100 at fix point 4, 1.0 at 7.
    given = np.array([8.0625, 100.0], np.float32)
    np.testing.assert_array_equal(truncated(given, 4), np.array([-127, 64], np.int8))
    assert truncated(np.ones(1, np.float32), 7)[0] == -128
    assert truncated(np.full(1, -2.0, np.float32), -2)[0] == 0


def test_float_outputs_are_scaled(runner: Any) -> None:
    outputs = outputs_of(runner, np.float32)
    run(runner, [pictures()], outputs)
    truth = expected(pictures())
    np.testing.assert_array_equal(outputs[0], truth[MAIN].astype(np.float32) / 16)
    np.testing.assert_array_equal(outputs[1], truth[SIDE].astype(np.float32) / 8)


def test_of_int16_the_first_bytes_of_each_picture_are_taken(runner: Any) -> None:
    wide = np.random.default_rng(3).integers(-30000, 30000, (8, 6, 5, 3)).astype(np.int16)
    raw = wide.view(np.int8).reshape(8, -1)[:, :90].reshape(8, 6, 5, 3)
    main = np.full((8, 6, 5, 4), 0x1111, np.int16)
    side = outputs_of(runner)[1]
    run(runner, [wide], [main, side])
    truth = expected(raw)
    np.testing.assert_array_equal(side, truth[SIDE])
    written = main.view(np.int8).reshape(8, -1)
    np.testing.assert_array_equal(written[:, :120], truth[MAIN].reshape(8, -1))
    assert set(written[:, 120:].reshape(-1)) == {0x11}


# -- dynamic arrays -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 8, 11])
def test_a_dynamic_batch_copies_what_both_sides_have(runner: Any, count: int) -> None:
    codes = pictures(count)
    main, side = np.full((count, 6, 5, 4), 77, np.int8), np.full((8, 6, 5, 2), 77, np.int8)
    assert run(runner, [codes], [main, side], enable_dynamic_array=True) == 0
    copied = min(count, 8)
    truth = expected(codes[:copied])
    np.testing.assert_array_equal(main[:copied], truth[MAIN])
    assert set(main[copied:].reshape(-1)) <= {77}
    np.testing.assert_array_equal(side[:copied], truth[SIDE])


@pytest.mark.parametrize("shape", [(8, 6, 5), (8, 6, 4, 3), (720,), (0, 6, 5, 3)])
def test_other_dimensions_of_a_dynamic_array_must_match(runner: Any, shape: Any) -> None:
    with aborts("VART_TENSOR_BUFFER_INVALID", "image_fix"):
        runner.execute_async([np.zeros(shape, np.int8)], outputs_of(runner), True)
