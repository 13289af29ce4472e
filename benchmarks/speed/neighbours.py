"""Exact nearest neighbours against what a user would otherwise take, in one run.

    python benchmarks/speed/neighbours.py [--rows 50000] [--width 512] [--k 50] [--mean 50] [--repeats 3]

Features are normal with a mean far from zero, as those of networks are; every fourth query is a reference with a
little noise: a near copy. The figure is time over that of the bare matrix product of the same rows in the same blocks.
"Wrong" are queries whose nearest reference is not the one that differences in double precision name, of a sample;
"error" is the largest relative error of the distance to the nearest. Methods take turns, so that a busy machine slows
all alike; seconds are processor seconds on one thread and wall seconds otherwise. faiss is left out where it is not
installed.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from fedsynth.evaluation.nearest_neighbours import nearest, patient_distances

BLOCK = 2048
SAMPLE = 100
Rows = NDArray[np.float32]
Answer = tuple[NDArray[np.floating], NDArray[np.integer]]


def bare_product(queries: Rows, references: Rows, k: int) -> None:
    """The arithmetic that none can do without."""
    turned = torch.from_numpy(references).T
    for start in range(0, len(queries), BLOCK):
        torch.from_numpy(queries[start : start + BLOCK]) @ turned


def ours(queries: Rows, references: Rows, k: int) -> Answer:
    return nearest(queries, references, k)


def our_patients(queries: Rows, references: Rows, k: int) -> None:
    patient_distances(queries, references, np.arange(len(references)) // 5, k)


def cdist(queries: Rows, references: Rows, k: int) -> Answer:
    found = [
        torch.cdist(torch.from_numpy(queries[start : start + BLOCK]), torch.from_numpy(references)).topk(
            k, largest=False
        )
        for start in range(0, len(queries), BLOCK)
    ]
    return torch.cat([part.values for part in found]).numpy(), torch.cat([part.indices for part in found]).numpy()


def scikit_learn(queries: Rows, references: Rows, k: int) -> Answer:
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(references)
    distances, indices = search.kneighbors(queries)
    return distances, indices


def faiss_flat(queries: Rows, references: Rows, k: int) -> Answer:
    import faiss  # type: ignore[import-not-found]

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(references.shape[1])
    index.add(references)
    squared, indices = index.search(queries, k)
    return np.sqrt(np.maximum(squared, 0)), indices


def nearest_by_differences(queries: Rows, references: Rows) -> Answer:
    """The nearest reference of a sample of queries, in double precision."""
    distances = np.empty(SAMPLE)
    indices = np.empty(SAMPLE, int)
    for number, row in enumerate(sampled(queries)):
        squared = np.square(queries[row].astype(float) - references.astype(float)).sum(axis=1)
        indices[number] = squared.argmin()
        distances[number] = np.sqrt(squared[indices[number]])
    return distances, indices


def sampled(queries: Rows) -> NDArray[np.integer]:
    return np.linspace(0, len(queries) - 1, SAMPLE).astype(int)


def wrong(answer: Answer, exact: Answer, rows: NDArray[np.integer]) -> tuple[float, float]:
    """The share of sampled queries with another nearest reference, and the largest relative error of its distance."""
    error = np.abs(answer[0][rows, 0] / exact[0] - 1)
    return float((answer[1][rows, 0] != exact[1]).mean()), float(error.max())


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (("rows", 50_000), ("width", 512), ("k", 50), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--mean", type=float, default=50.0)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    references = rng.normal(asked.mean, 1, (asked.rows, asked.width)).astype(np.float32)
    queries = rng.normal(asked.mean, 1, (asked.rows, asked.width)).astype(np.float32)
    queries[::4] = references[::4] + rng.normal(0, 0.01, references[::4].shape).astype(np.float32)
    methods: dict[str, Callable[[Rows, Rows, int], Answer | None]] = {
        "bare matrix product": bare_product,
        "fedsynth, nearest rows": ours,
        "fedsynth, nearest patients": our_patients,
        "torch.cdist and topk": cdist,
        "scikit-learn, brute": scikit_learn,
    }
    try:
        import faiss  # noqa: F401

        methods["faiss, IndexFlatL2"] = faiss_flat
    except ImportError:
        print("faiss is not installed: left out")
    threads = torch.get_num_threads()
    clock = time.process_time if threads == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    answers: dict[str, Answer | None] = {}
    for _ in range(asked.repeats):
        for name, method in methods.items():
            begun = clock()
            answers[name] = method(queries, references, asked.k)
            seconds[name].append(clock() - begun)
    print(
        f"\n{asked.rows} x {asked.rows} x {asked.width}, k = {asked.k}, mean {asked.mean}; {platform.machine()}, ",
        end="",
    )
    print(f"{threads} thread(s), torch {torch.__version__}\n")
    print("| method | seconds | times the bare product | wrong | error |\n|---|---|---|---|---|")
    bare = statistics.median(seconds["bare matrix product"])
    exact = nearest_by_differences(queries, references)
    for name, taken in seconds.items():
        answer = answers[name]
        seen = "| |" if answer is None else "{:.1%} | {:.1e} |".format(*wrong(answer, exact, sampled(queries)))
        middle = statistics.median(taken)
        print(f"| {name} | {middle:.2f} | {middle / bare:.2f} | {seen}")


if __name__ == "__main__":
    main()
