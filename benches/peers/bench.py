"""Times the transformer network beside ONNX Runtime and OpenVINO on the same weights, and prints the ratios.

Every round runs each program once, one after the other, so that all see the same machine; a ratio is the median over
rounds of a peer's time to ours in the same round. Ours runs in full and in reduced precision. Before anything is timed, outputs are compared with ONNX Runtime's.
Run it by `make bench-peers`, on a machine that does nothing else.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnxruntime
import openvino

from export import export

PSNR_MIN = 60.0
REDUCED_PSNR_MIN = 40.0


def picture(width, height):
    """Returns planes of RGB on 0..255 with smooth and busy parts, the same every time."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    noise = np.random.default_rng(1).uniform(-20, 20, (3, height, width)).astype(np.float32)
    waves = [np.sin(x / 9 + p) * np.cos(y / (13 + p)) * 60 + 127 + 40 * np.sin((x + y) / 150) for p in range(3)]
    return np.clip(np.stack(waves) + noise, 0, 255).round().astype(np.float32)[None]


class Ours:
    """Our program, which answers a line with a forward pass."""

    def __init__(self, program, weights, frame, threads, isa, reduced, folder):
        name = "reduced" if reduced else "full"
        self.output = os.path.join(folder, f"{name}.out.f32")
        source = os.path.join(folder, f"{name}.in.f32")
        frame.tofile(source)
        height, width = frame.shape[2:]
        self.size = (-(-height // 4) * 4, -(-width // 4) * 4)
        command = [program, weights, str(width), str(height), str(threads), source, self.output]
        command += [isa] if isa else []
        command += ["--precision", "reduced"] if reduced else []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.name = f"restyle ({self.process.stdout.readline().strip()})"
        self.memory = 0

    def tell(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit("our program failed")
        self.memory = int(answer)

    def run(self):
        self.tell("run")

    @property
    def result(self):
        self.tell("save")
        return np.fromfile(self.output, np.float32).reshape(1, 3, *self.size)

    def finish(self):
        self.process.stdin.close()
        if self.process.wait() != 0:
            sys.exit("our program failed")


class OnnxRuntime:
    name = f"onnxruntime {onnxruntime.__version__}"

    def __init__(self, model, frame, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.frame = frame

    def run(self):
        self.result = self.session.run(None, {"rgb": self.frame})[0]


class OpenVino:
    name = f"openvino {openvino.__version__.split('-')[0]}"

    def __init__(self, model, frame, threads):
        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        network = core.read_model(model, b"")
        self.request = core.compile_model(network, "CPU", settings).create_infer_request()
        self.frame = frame

    def run(self):
        self.result = next(iter(self.request.infer({"rgb": self.frame}).values()))


def psnr(a, b):
    """Compares two outputs on the scale 0..255, each clamped to it as a picture would be."""
    error = np.mean((np.clip(a, 0, 255).astype(np.float64) - np.clip(b, 0, 255)) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def timed(program):
    start = time.perf_counter()
    program.run()
    return time.perf_counter() - start


def compare(args, width, height, threads):
    frame = picture(width, height)
    model = export(args.weights, width, height)
    with tempfile.TemporaryDirectory() as folder:
        ours = [Ours(args.program, args.weights, frame, threads, args.isa, reduced, folder) for reduced in (False, True)]
        peers = [OnnxRuntime(model, frame, threads), OpenVino(model, frame, threads)]
        programs = [*ours, *peers]
        for program in programs:
            program.run()
        found = [psnr(program.result, peers[0].result) for program in [*ours, peers[1]]]
        if found[2] < PSNR_MIN:
            sys.exit(f"OpenVINO is {found[2]:.1f} dB from ONNX Runtime: they do not run the same network")
        rounds = [[timed(program) for program in programs] for _ in range(args.rounds)]
        for program in ours:
            program.finish()
    row = {
        "size": f"{width}x{height}",
        "threads": threads,
        "psnr": found[:2],
        "best": [min(times[k] for times in rounds) for k in range(4)],
        "ratios": [[statistics.median(times[peer] / times[k] for times in rounds) for peer in (2, 3)] for k in (0, 1)],
        "faster": [statistics.median(min(times[2:]) / times[k] for times in rounds) for k in (0, 1)],
        "memory": [program.memory / 1e6 for program in ours],
        "name": [program.name for program in ours],
    }
    return row


def processor():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True, help="the built example `forward` of restyle-models")
    parser.add_argument("--weights", required=True, help="a style file")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sizes", default="256x256,640x360,1280x720")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--isa", help="force an instruction set: portable, avx2, avx512")
    args = parser.parse_args()

    print(f"{processor()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; {os.path.basename(args.weights)}")
    print(f"{OnnxRuntime.name}, {OpenVino.name}; {args.rounds} rounds, best seconds, median ratios")
    print("size       threads  restyle  onnxrt  openvino | onnxrt/ours openvino/ours faster peer/ours | PSNR dB  MB")
    bad = False
    for size in args.sizes.split(","):
        width, height = map(int, size.split("x"))
        for threads in map(int, args.threads.split(",")):
            row = compare(args, width, height, threads)
            onnxrt, vino = row["best"][2:]
            for k, psnr_min in ((0, PSNR_MIN), (1, REDUCED_PSNR_MIN)):
                ratios = row["ratios"][k]
                print(
                    f"{row['size']:<10} {threads:>7} {row['best'][k]:8.3f} {onnxrt:7.3f} {vino:9.3f} | {ratios[0]:11.2f} "
                    f"{ratios[1]:13.2f} {row['faster'][k]:16.2f} | {row['psnr'][k]:7.1f} {row['memory'][k]:4.0f}  "
                    f"{row['name'][k]}",
                    flush=True,
                )
                bad |= row["psnr"][k] < psnr_min
    if bad:
        sys.exit(f"an output is below {PSNR_MIN} dB beside ONNX Runtime, or {REDUCED_PSNR_MIN} dB in reduced precision")


if __name__ == "__main__":
    main()
