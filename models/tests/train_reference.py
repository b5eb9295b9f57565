"""Reference features, Gram matrices and losses for `train_reference.rs`, computed with numpy alone.

Writes `train_reference.safetensors`: a tiny VGG-19-shaped encoder with random weights, two pictures, and the expected values.
Run: python3 models/tests/train_reference.py   (needs numpy; the output is committed)
"""

import json
import os
import struct

import numpy as np

rng = np.random.default_rng(20)
CHANNELS = {"conv11": 4, "conv12": 4, "conv21": 5, "conv22": 5, "conv31": 6, "conv32": 6, "conv33": 6, "conv34": 6, "conv41": 7}
POOLED = {"conv21", "conv31", "conv41"}
LEVELS = ["conv11", "conv21", "conv31", "conv41"]


def conv(x, w, b):
    """Reflection-padded correlation in double precision, one shifted product a tap."""
    k = w.shape[2]
    p = k // 2
    padded = np.pad(x, ((0, 0), (p, p), (p, p)), mode="reflect")
    out = np.zeros((w.shape[0], x.shape[1], x.shape[2]))
    for dy in range(k):
        for dx in range(k):
            view = padded[:, dy : dy + x.shape[1], dx : dx + x.shape[2]]
            out += np.einsum("oc,chw->ohw", w[:, :, dy, dx], view)
    return out + b[:, None, None]


def pool(x):
    c, h, w = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(c, h // 2, 2, w // 2, 2).max(axis=(2, 4))


weights = {"conv0.weight": rng.normal(0, 1, (3, 3, 1, 1)), "conv0.bias": rng.normal(0, 0.3, 3)}
last = 3
for name, channels in CHANNELS.items():
    weights[f"{name}.weight"] = rng.normal(0, (2 / (9 * last)) ** 0.5, (channels, last, 3, 3))
    weights[f"{name}.bias"] = rng.normal(0, 0.1, channels)
    last = channels
weights = {name: value.astype(np.float32) for name, value in weights.items()}


def features(x):
    x = conv(x, weights["conv0.weight"].astype(float), weights["conv0.bias"].astype(float))
    levels = []
    for name in CHANNELS:
        if name in POOLED:
            x = pool(x)
        x = np.maximum(conv(x, weights[f"{name}.weight"].astype(float), weights[f"{name}.bias"].astype(float)), 0)
        if name in LEVELS:
            levels.append(x)
    return levels


def gram(f):
    flat = f.reshape(f.shape[0], -1)
    return flat @ flat.T / flat.shape[1]


def relative(value, target):
    return ((value - target) ** 2).sum() / (target**2).sum()


pictures = {name: rng.uniform(-0.1, 1.1, (3, 34, 42)).astype(np.float32) for name in ("styled", "content")}
painting = rng.uniform(0, 1, (3, 40, 32)).astype(np.float32)
styled, content, style = (features(x.astype(float)) for x in (pictures["styled"], pictures["content"], painting))
level_weights = [0.3, 0.5, 1.0, 2.0]
y = pictures["styled"].astype(float)
z = pictures["content"].astype(float)
dy, dx = 3, -5
expected = {
    "feature_means": [float(f.mean()) for f in styled],
    "gram_sums": [float(gram(f).sum()) for f in styled],
    "content": float(relative(styled[2], content[2])),
    "style": float(np.mean([w * relative(gram(a), gram(b)) for w, a, b in zip(level_weights, styled, style)])),
    "variation": float(((y[:, 1:] - y[:, :-1]) ** 2).mean() + ((y[:, :, 1:] - y[:, :, :-1]) ** 2).mean()),
    "range": float(((y - y.clip(0, 1)) ** 2).mean()),
    # Pixel (r, c) of the second shows what (r + dy, c + dx) of the first does.
    "steadiness": float(((y[:, dy:, :dx] - z[:, :-dy, -dx:]) ** 2).mean()),
}

tensors = dict(weights, **{f"picture.{name}": value for name, value in pictures.items()}, **{"picture.painting": painting})
header, data = {"__metadata__": {"expected": json.dumps(expected), "levels": json.dumps(level_weights)}}, b""
for name, value in sorted(tensors.items()):
    raw = np.ascontiguousarray(value, dtype="<f4").tobytes()
    header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(raw)]}
    data += raw
head = json.dumps(header).encode()
head += b" " * (-len(head) % 8)
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "train_reference.safetensors")
with open(path, "wb") as file:
    file.write(struct.pack("<Q", len(head)) + head + data)
print(json.dumps(expected, indent=1))
