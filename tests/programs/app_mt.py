"""Runs a compiled network by the vendor's API, several threads, and keeps the answers. Knows
nothing of us."""

import argparse
import os
import threading

import numpy as np
import vart
import xir


def dpu_subgraphs(graph):
    root = graph.get_root_subgraph()
    assert not root.is_leaf, "the model is not compiled"
    return [
        child
        for child in root.toposort_child_subgraph()
        if child.has_attr("device") and child.get_attr("device").upper() == "DPU"
    ]


def codes(images, fix_point):
    """Pixels in 0..1 to int8 codes."""
    values = np.floor(images.astype(np.float32) / np.float32(255) * 2**fix_point + 0.5)
    return np.clip(values, -128, 127).astype(np.int8)


def work(runner, images, start, answers):
    """One thread: its share of the pictures, batch after batch."""
    (given,) = runner.get_input_tensors()
    taken = runner.get_output_tensors()
    shape = tuple(given.dims)
    done = 0
    while done < len(images):
        count = min(shape[0], len(images) - done)
        batch = np.zeros(shape, dtype=np.int8, order="C")
        batch[:count] = images[done : done + count].reshape((count, *shape[1:]))
        outputs = [np.empty(tuple(tensor.dims), dtype=np.int8, order="C") for tensor in taken]
        job = runner.execute_async([batch], outputs)
        runner.wait(job)
        for tensor, output in zip(taken, outputs):
            scale = 2.0 ** -tensor.get_attr("fix_point")
            for slot in range(count):
                answers[tensor.name][start + done + slot] = output[slot] * scale
        done += count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("-i", "--images", required=True, help=".npy of uint8 NHWC")
    parser.add_argument("-t", "--threads", type=int, default=1)
    parser.add_argument("-o", "--output", default="answers.npz")
    args = parser.parse_args()
    pixels = np.load(args.images)
    graph = xir.Graph.deserialize(args.model)
    subgraphs = dpu_subgraphs(graph)
    assert len(subgraphs) == 1, len(subgraphs)
    runners = [vart.Runner.create_runner(subgraphs[0], "run") for _ in range(args.threads)]
    fix_point = runners[0].get_input_tensors()[0].get_attr("fix_point")
    images = codes(pixels, fix_point)
    answers = {t.name: [None] * len(images) for t in runners[0].get_output_tensors()}
    share = len(images) // args.threads
    threads = []
    for number, runner in enumerate(runners):
        start = number * share
        end = len(images) if number == args.threads - 1 else start + share
        arguments = (runner, images[start:end], start, answers)
        threads.append(threading.Thread(target=work, args=arguments))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answer is not None for table in answers.values() for answer in table)
    np.savez(args.output, **{name: np.array(table) for name, table in answers.items()})
    print(os.path.basename(args.model), len(images), "pictures", sorted(answers))


if __name__ == "__main__":
    main()
