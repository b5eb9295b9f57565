"""Writes the transformer network of a style file as ONNX, for one input size.

The graph is the one the weights were made for: mirrored borders, instance norm, nearest-neighbour upsampling.
"""

import json
import struct

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def read_safetensors(path):
    """Reads all tensors as f32."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    tensors = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        raw = data[slice(*info["data_offsets"])]
        if info["dtype"] == "BF16":
            values = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        else:
            values = np.frombuffer(raw, {"F16": "<f2", "F32": "<f4"}[info["dtype"]]).astype("<f4")
        tensors[name] = values.reshape(info["shape"])
    return tensors


class Graph:
    """Nodes and weights in the order in which they are added."""

    def __init__(self, tensors):
        self.tensors = tensors
        self.nodes = []
        self.weights = []

    def constant(self, name, values):
        if all(weight.name != name for weight in self.weights):
            self.weights.append(numpy_helper.from_array(values, name))
        return name

    def add(self, kind, *inputs, **attributes):
        out = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def conv(self, x, name, stride=1):
        kernel = self.tensors[f"{name}.conv2d.weight"]
        pad = kernel.shape[2] // 2
        pads = self.constant(f"pads{pad}", np.array([0, 0, pad, pad, 0, 0, pad, pad], np.int64))
        padded = self.add("Pad", x, pads, mode="reflect")
        weight = self.constant(f"{name}.weight", kernel)
        bias = self.constant(f"{name}.bias", self.tensors[f"{name}.conv2d.bias"])
        return self.add("Conv", padded, weight, bias, strides=[stride, stride])

    def norm(self, x, name):
        scale = self.constant(f"{name}.scale", self.tensors[f"{name}.weight"])
        shift = self.constant(f"{name}.shift", self.tensors[f"{name}.bias"])
        return self.add("InstanceNormalization", x, scale, shift, epsilon=1e-5)

    def relu(self, x):
        return self.add("Relu", x)

    def doubled(self, x):
        scales = self.constant("twice", np.array([1, 1, 2, 2], np.float32))
        attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.add("Resize", x, "", scales, **attributes)


def export(weights_path, width, height):
    """Returns the network as a serialized ONNX model with input and output named `rgb` and `out`."""
    graph = Graph(read_safetensors(weights_path))
    x = graph.relu(graph.norm(graph.conv("rgb", "conv1"), "in1"))
    x = graph.relu(graph.norm(graph.conv(x, "conv2", 2), "in2"))
    x = graph.relu(graph.norm(graph.conv(x, "conv3", 2), "in3"))
    block = 1
    while f"res{block}.conv1.conv2d.weight" in graph.tensors:
        inner = graph.relu(graph.norm(graph.conv(x, f"res{block}.conv1"), f"res{block}.in1"))
        inner = graph.norm(graph.conv(inner, f"res{block}.conv2"), f"res{block}.in2")
        x = graph.add("Add", inner, x)
        block += 1
    x = graph.relu(graph.norm(graph.conv(graph.doubled(x), "deconv1"), "in4"))
    x = graph.relu(graph.norm(graph.conv(graph.doubled(x), "deconv2"), "in5"))
    x = graph.conv(x, "deconv3")
    graph.nodes.append(helper.make_node("Identity", [x], ["out"]))
    size = (-(-height // 4) * 4, -(-width // 4) * 4)
    info = helper.make_graph(
        graph.nodes,
        "transformer",
        [helper.make_tensor_value_info("rgb", TensorProto.FLOAT, [1, 3, height, width])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 3, *size])],
        graph.weights,
    )
    model = helper.make_model(info, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()
