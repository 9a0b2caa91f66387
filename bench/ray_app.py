"""What Ray costs and gives: one process against a front with 1 and with 2 replicas, in turn, in the same run.

The embedded detector, split at stride 16, images 256 x 256, plaintext on loopback, one thread for each rear. What is
measured is the throughput of 8 reliable streams of packets that were coded before, and the added latency of one live
camera, both as bench/service.py makes them. Replicas have cores of their own only if the machine has them: `cores`
tells.

Writes bench/results/ray_app.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from conditions import conditions
from ray import serve
from service import EDGES, Edges, added_latency, server

from featcomp.ray_app import build
from featcomp.ray_app.local import local_cluster


@contextmanager
def application(replicas: int, max_batch: int) -> Iterator[str]:
    """The application on a Ray cluster of this machine; gives its address."""
    settings = {
        "plaintext": True,
        "listen": "127.0.0.1:0",
        "batching": {"max_batch": max_batch},
        "ray": {"min_replicas": replicas, "max_replicas": replicas, "replica_cpus": 1, "front_cpus": 0.5},
    }
    with local_cluster(replicas + 1):
        front = serve.run(build(settings), name="featcomp", route_prefix=None)
        yield front.address.remote().result()


def measured(address: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Throughput and added latency of whatever serves there."""
    frames, batch = Edges(address).throughput(arguments.seconds)
    latency = added_latency(address, arguments.frames, arguments.fps)
    added = {f"added_ms_{share}": latency[share] for share in ("p50", "p99")}
    return {"frames_per_second": frames, "mean_batch": batch} | added


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians over rounds, and of each round's ratios to the one process of that round."""
    ways = {
        "one process": lambda: server(arguments.max_batch),
        "1 replica": lambda: application(1, arguments.max_batch),
        "2 replicas": lambda: application(2, arguments.max_batch),
    }
    rounds: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(arguments.rounds):
        for way in sorted(ways, reverse=bool(number % 2)):
            with ways[way]() as address:
                rounds[way].append(measured(address, arguments))
            print(number, way, json.dumps(rounds[way][-1]), flush=True)
    medians = {
        way: {what: statistics.median(one[what] for one in found) for what in found[0]} for way, found in rounds.items()
    }
    for way, found in rounds.items():
        pairs = zip(found, rounds["one process"], strict=True)
        ratios = [one["frames_per_second"] / single["frames_per_second"] for one, single in pairs]
        medians[way]["throughput_ratio"] = statistics.median(ratios)
    return {"rounds": arguments.rounds, "edges": EDGES, "max_batch": arguments.max_batch} | medians


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--fps", type=float, default=20.0)
    parser.add_argument("--max-batch", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    results = {"conditions": conditions() | {"cores": str(os.cpu_count()), "load_before": f"{load:.1f}"}} | run(
        arguments
    )
    print(json.dumps(results, indent=2))
    (Path(__file__).parent / "results" / "ray_app.json").write_text(json.dumps(results, indent=2) + "\n")
