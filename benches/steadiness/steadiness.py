"""Measures how steady styles are between the frames of a clip: the warping error along the source's optical flow.

Each clip's first frames are scaled, stylized by `restyle run` (lossless, in and out) and compared: frame t, moved along the flow of
the source (DIS, Kroeger et al. 2016) to frame t + 1, against frame t + 1. Pixels that are shown anew (their flows there and back
disagree) or lie on the edge of a motion, where no flow is right, do not count (Sundaram et al. 2010, as used for styles by Ruder et
al. 2016). Printed: the root mean square over counted pixels and channels, colours 0..1, the same over the deviation of the output,
since a flat picture is steady, and by how much each style's error is below the first one's.

    steadiness.py --program restyle [--width 320] [--frames 40] --clip A.mp4 ... --style name=weights ...
"""

import argparse
import os
import subprocess
import tempfile

import cv2
import numpy as np


def frames(path, count=None):
    capture, read = cv2.VideoCapture(path), []
    while count is None or len(read) < count:
        alive, frame = capture.read()
        if not alive:
            break
        read.append(frame)
    if len(read) < 2:
        raise SystemExit(f"{path}: expected at least two frames")
    return read


def write(path, pictures):
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"FFV1"), 25, (width, height))
    if not writer.isOpened():
        raise SystemExit("this OpenCV cannot write FFV1")
    for picture in pictures:
        writer.write(picture)
    writer.release()


def scaled(pictures, width):
    height = round(pictures[0].shape[0] * width / pictures[0].shape[1] / 4) * 4
    return [cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) for picture in pictures]


def sample(values, flow):
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(values, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def motion_edges(flow):
    slopes = [cv2.Sobel(flow[..., part], cv2.CV_32F, *axis, scale=1 / 8) for part in (0, 1) for axis in ((1, 0), (0, 1))]
    return sum(slope**2 for slope in slopes) > 0.01 * (flow**2).sum(2) + 0.002


def flows(pictures):
    """For each pair of neighbours: the flow back from the second, and which of its pixels the first shows too."""
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grays = [cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) for picture in pictures]
    pairs = []
    for first, second in zip(grays, grays[1:]):
        there, back = estimator.calc(first, second, None), estimator.calc(second, first, None)
        returned = sample(there, back)
        apart = ((back + returned) ** 2).sum(2)
        shown = apart < 0.01 * ((back**2).sum(2) + (returned**2).sum(2)) + 0.5
        height, width = first.shape
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        inside = (x + back[..., 0] >= 0) & (x + back[..., 0] <= width - 1)
        inside &= (y + back[..., 1] >= 0) & (y + back[..., 1] <= height - 1)
        pairs.append((back, shown & inside & ~motion_edges(back)))
    return pairs


def warping_error(pictures, pairs):
    total, count = 0.0, 0
    for first, second, (back, shown) in zip(pictures, pictures[1:], pairs):
        moved = sample(first.astype(np.float32) / 255, back)
        error = ((second.astype(np.float32) / 255 - moved) ** 2)[shown]
        total, count = total + float(error.sum()), count + error.size
    return (total / count) ** 0.5


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--clip", action="append", required=True)
    parser.add_argument("--style", action="append", required=True, help="a label, =, and what --style takes; the first is compared with")
    args = parser.parse_args()
    styles = [style.split("=", 1) for style in args.style]
    print("| clip | style | warping error | over deviation | pixels that count |\n| --- | --- | --- | --- | --- |")
    errors = {label: [] for label, _ in styles}
    for clip in args.clip:
        with tempfile.TemporaryDirectory() as folder:
            for label, error in measure(args, clip, styles, folder):
                errors[label].append(error)
    first = styles[0][0]
    for label, _ in styles[1:]:
        less = [1 - mine / theirs for mine, theirs in zip(errors[label], errors[first])]
        print(f"{label}: {', '.join(f'{share:.0%}' for share in less)} less than {first}; mean {np.mean(less):.0%}")


def measure(args, clip, styles, folder):
    """Yields each style's label and warping error on a clip."""
    source_path = os.path.join(folder, "source.mkv")
    write(source_path, scaled(frames(clip, args.frames), args.width))
    source = frames(source_path)
    pairs = flows(source)
    counted = np.mean([shown.mean() for _, shown in pairs])

    def show(label, pictures):
        error = warping_error(pictures, pairs)
        deviation = np.std(np.stack(pictures).astype(np.float32) / 255)
        name = os.path.basename(clip)
        print(f"| {name} | {label} | {error:.4f} | {error / deviation:.3f} | {counted:.0%} |", flush=True)
        return error

    show("source", source)
    for index, (label, weights) in enumerate(styles):
        result = os.path.join(folder, f"{index}.mkv")
        command = [args.program, "run", source_path, result, "--style", weights, "--codec", "ffv1", "--progress", "none"]
        subprocess.run([*command, "--work-dir", os.path.join(folder, "work")], check=True)
        yield label, show(label, frames(result))


if __name__ == "__main__":
    main()
