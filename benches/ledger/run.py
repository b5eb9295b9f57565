#!/usr/bin/env python3
"""Measures what the ledger costs a job: the share of the wall time spent inside its calls, and paired runs of the same job
with the work store on disk and in memory.

    make bench-ledger BENCH_ARGS="clip.mp4 --style candy.safetensors"

The clip is scaled to 640x360 first. Pairs are interleaved, disk first in even rounds and memory first in odd ones, so that
both see the same machine; run it on one that does nothing else. Time inside calls is summed over all threads: where calls
overlap with scoring, it overstates what they cost.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile


def job(program, clip, style, folder, store):
    """Runs one job from the beginning; returns its wall seconds and its seconds inside ledger calls."""
    with tempfile.TemporaryDirectory(dir=store) as work:
        output = folder / "out.mp4"
        output.unlink(missing_ok=True)
        command = [program, "run", clip, output, "--style", style, "--work-dir", work, "--json", "--progress", "none"]
        done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=True)
    last = json.loads(done.stdout.splitlines()[-1])
    return last["wall_seconds"], last["ledger_seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("clip", type=pathlib.Path)
    parser.add_argument("--program", required=True)
    parser.add_argument("--style", required=True)
    parser.add_argument("--seconds", default="4", help="how much of the clip is styled")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", default="/dev/shm", help="a folder in memory")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        clip = folder / "clip.mp4"
        scale = ["ffmpeg", "-v", "error", "-i", said.clip, "-t", said.seconds, "-vf", "scale=640:360,setsar=1", "-an", clip]
        subprocess.run([str(part) for part in scale], check=True)
        shares, ratios = [], []
        for round_number in range(said.rounds):
            stores = [name, said.memory]
            seconds = {}
            for store in stores if round_number % 2 == 0 else stores[::-1]:
                seconds[store] = job(said.program, clip, said.style, folder, store)
            (disk, inside), (memory, _) = seconds[name], seconds[said.memory]
            shares.append(inside / disk)
            ratios.append(disk / memory)
            print(f"disk {disk:6.2f} s, in ledger calls {inside:.3f} s ({inside / disk:.2%}); memory {memory:6.2f} s; disk/memory {disk / memory:.3f}")
        print(f"median share in ledger calls {statistics.median(shares):.2%}, median disk/memory {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
