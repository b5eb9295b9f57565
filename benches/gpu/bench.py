"""Times the network on one card: layer by layer, whole, beside PyTorch, and in whole jobs. Prints Markdown for docs/PERFORMANCE.md.

Peers have the same weights and pictures and run in the same minutes: PyTorch eager and `torch.compile` in its mode with CUDA graphs, both
bfloat16 and channels-last. Before anything counts, every output is compared with our f32 path. Floors are the least time that the card
needs for the arithmetic and the traffic at its published peaks. Run it by `make bench-gpu` on a card that does nothing else.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from environment import OURS


class Busy:
    """Samples the utilisation of a card while something else runs."""

    def __init__(self, device):
        self.card = device.removeprefix("cuda:")

    def __enter__(self):
        query = ["nvidia-smi", "-i", self.card, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
        self.samples = []
        self.process = None
        if shutil.which(query[0]):
            self.process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)
            self.reader = threading.Thread(target=self.read)
            self.reader.start()
        return self

    def read(self):
        self.samples.extend(int(line) for line in self.process.stdout if line.strip().isdigit())

    def __exit__(self, *_):
        if self.process:
            self.process.terminate()
            self.reader.join()

    def share(self):
        return f"{sum(self.samples) / len(self.samples):.0f} %" if self.samples else "unknown"


def score_alone(arguments, width, height, seconds=10):
    """Returns frames per second of scoring with its copies both ways, and nothing else."""
    command = [arguments.score_alone, arguments.device, arguments.weights, width, height]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=OURS) as process:
        # The first answer is of the call that warms up.
        process.stdout.readline()
        frames, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            process.stdin.write("run\n")
            process.stdin.flush()
            frames += int(process.stdout.readline())
        elapsed = time.perf_counter() - begin
        process.stdin.close()
    return frames / elapsed


def encode_alone(clip, frames):
    """Returns frames per second of encoding as a job does: one thread a segment, as many at once as a job encodes."""
    at_once = max(2, min(16, os.cpu_count() // 2))
    encode = ["ffmpeg", "-v", "error", "-i", clip, "-map", "0:v", "-c:v", "libx264", "-preset", "veryfast", "-crf", "18"]
    encode += ["-x264-params", "rc-lookahead=10:sync-lookahead=0:lookahead-threads=1:open-gop=0"]
    encode += ["-threads", "1", "-f", "null", "-"]
    begin = time.perf_counter()
    for process in [subprocess.Popen(encode) for _ in range(at_once)]:
        if process.wait() != 0:
            sys.exit("encoding alone failed")
    return at_once * frames / (time.perf_counter() - begin)


def whole_job(arguments, clip, folder, extra):
    """Runs a job; returns its report, the card's busy share, and whether all that a card was to do was done by one."""
    styled = os.path.join(folder, f"styled{len(extra)}.mp4")
    command = [arguments.restyle, "run", clip, styled, "--style", arguments.weights, "--device", arguments.device, *extra]
    command += ["--work-dir", os.path.join(folder, "work"), "--json", "--overwrite", "--fresh"]
    with Busy(arguments.device) as busy:
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=OURS).stdout.splitlines()
    events = [json.loads(line) for line in lines]
    fell_back = any(event.get("message", "").endswith(" instead") for event in events)
    return {**events[-1], "output": styled}, busy.share(), fell_back


def bench_job(arguments, folder):
    """Whole jobs on a clip, beside their two costly stages alone."""
    clip = os.path.join(folder, "clip.mp4")
    width, height = arguments.job_size.split("x")
    source = ["-f", "lavfi", "-i", f"testsrc2=size={width}x{height}:rate=30:duration={arguments.job_seconds}"]
    subprocess.run(["ffmpeg", "-v", "error", "-y", *source, "-pix_fmt", "yuv420p", clip], check=True)
    decode, encode = ["--decode", "cuda"], ["--codec", "h264_nvenc"]
    plain, *others = [whole_job(arguments, clip, folder, extra) for extra in ([], decode, decode + encode)]
    scoring, encoding = score_alone(arguments, width, height), encode_alone(plain[0]["output"], plain[0]["frames"])
    print(f"\n| {width}x{height} | fps | of the slower stage | card busy |\n|---|---|---|---|")
    print(f"| scoring alone | {scoring:.1f} | | |\n| encoding alone | {encoding:.1f} | | |")
    share = 100 * plain[0]["fps"] / min(scoring, encoding)
    print(f"| whole job | {plain[0]['fps']:.1f} | {share:.0f} % | {plain[1]} |")
    for name, (finished, busy, fell_back) in zip(("decoded by NVDEC", "decoded by NVDEC, encoded by NVENC"), others):
        fps = "fell back to the processor" if fell_back else f"{finished['fps']:.1f}"
        print(f"| whole job, {name} | {fps} | | {busy} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True, help="the built example `gpu_bench` of restyle-models")
    parser.add_argument("--score-alone", required=True, help="the built example `score_alone` of restyle-models")
    parser.add_argument("--restyle", required=True, help="the built program")
    parser.add_argument("--weights", required=True, help="a style of the published widths")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--job-size", default="1920x1080", help="size of the clip of the whole job")
    parser.add_argument("--job-seconds", type=int, default=120, help="length of that clip")
    parser.add_argument("--only", choices=["network", "job"], help="one half of the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.only != "job":
            # PyTorch is needed for this half alone.
            from network import bench_network

            bench_network(arguments, folder)
        if arguments.only != "network":
            bench_job(arguments, folder)


if __name__ == "__main__":
    main()
