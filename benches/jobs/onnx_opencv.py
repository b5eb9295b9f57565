"""The script that one writes by hand: OpenCV reads, ONNX Runtime styles with all cores, OpenCV writes. No sound, no resuming."""

import sys

import cv2
import numpy as np
import onnxruntime


def main(clip, model, output):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    source = cv2.VideoCapture(clip)
    fps, sink, frames = source.get(cv2.CAP_PROP_FPS), None, 0
    while True:
        there, frame = source.read()
        if not there:
            break
        rgb = np.ascontiguousarray(frame[:, :, ::-1].transpose(2, 0, 1)[None], np.float32)
        styled = session.run(None, {"rgb": rgb})[0][0]
        frame = np.ascontiguousarray(styled.clip(0, 255).round().astype(np.uint8).transpose(1, 2, 0)[:, :, ::-1])
        if sink is None:
            sink = cv2.VideoWriter(output, cv2.VideoWriter_fourcc(*"mp4v"), fps, (frame.shape[1], frame.shape[0]))
        sink.write(frame)
        frames += 1
    sink.release()
    print(frames)


if __name__ == "__main__":
    main(*sys.argv[1:])
