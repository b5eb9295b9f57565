"""Makes the files that the import test reads, with Python's own pickler and zip writer and with the onnx package.

No PyTorch is needed: classes of its names stand in, so that the pickles name what PyTorch's do (torch/serialization.py: the
persistent ids, the order of the legacy format). Weights are small and random. Usage: make.py FOLDER
"""

import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np

BLOCKS = 1


def layers():
    convs = [("conv1", 3, 2, 9), ("conv2", 2, 3, 3), ("conv3", 3, 4, 3)]
    norms = [("in1", 2), ("in2", 3), ("in3", 4)]
    for block in range(1, BLOCKS + 1):
        for half in (1, 2):
            convs.append((f"res{block}.conv{half}", 4, 4, 3))
            norms.append((f"res{block}.in{half}", 4))
    convs += [("deconv1", 4, 3, 3), ("deconv2", 3, 2, 3), ("deconv3", 2, 3, 9)]
    norms += [("in4", 3), ("in5", 2)]
    return convs, norms


def state():
    """Value n of the whole state is n / 64 modulo 4, less 2: exact in half precision, other in every tensor."""
    convs, norms = layers()
    shapes = []
    for index, (name, inputs, outputs, kernel) in enumerate(convs):
        shapes += [(f"{name}.conv2d.weight", (outputs, inputs, kernel, kernel)), (f"{name}.conv2d.bias", (outputs,))]
        if index < len(norms):
            shapes += [(f"{norms[index][0]}.weight", (norms[index][1],)), (f"{norms[index][0]}.bias", (norms[index][1],))]
    tensors, start = OrderedDict(), 0
    for name, shape in shapes:
        count = int(np.prod(shape))
        tensors[name] = ((np.arange(start, start + count) % 256) / 64 - 2).reshape(shape).astype(np.float32)
        start += count
    return tensors


def stand_in(module, name):
    return type(name, (), {"__module__": module})


torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
for kind in ("FloatStorage", "HalfStorage", "LongStorage"):
    setattr(torch, kind, stand_in("torch", kind))


def _rebuild_tensor_v2(*arguments):
    raise AssertionError("never called here")


_rebuild_tensor_v2.__module__ = "torch._utils"
_rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
utils._rebuild_tensor_v2 = _rebuild_tensor_v2
torch._utils = utils
sys.modules.update({"torch": torch, "torch._utils": utils})


class Storage:
    def __init__(self, key, values):
        self.key, self.values = key, values
        self.kind = {"float32": torch.FloatStorage, "float16": torch.HalfStorage, "int64": torch.LongStorage}[str(values.dtype)]


class Tensor:
    def __init__(self, storage, offset, shape):
        self.storage, self.offset, self.shape = storage, offset, shape

    def __reduce__(self):
        strides = tuple(int(np.prod(self.shape[i + 1 :])) for i in range(len(self.shape)))
        return _rebuild_tensor_v2, (self.storage, self.offset, tuple(self.shape), strides, False, OrderedDict())


class Pickler(pickle.Pickler):
    def __init__(self, out, legacy):
        super().__init__(out, protocol=2)
        self.legacy = legacy

    def persistent_id(self, thing):
        if not isinstance(thing, Storage):
            return None
        head = ("storage", thing.kind, thing.key, "cpu", len(thing.values))
        return head + (None,) if self.legacy else head


def dictionary(dtype=np.float32):
    """The state as tensors; the two tensors of the first norm share a storage, a counter is of integers."""
    storages, tensors = [], OrderedDict()
    for name, values in state().items():
        if name == "in1.bias":
            storage = tensors["in1.weight"].storage
            storage.values = np.concatenate([storage.values, values.astype(dtype)])
            tensors[name] = Tensor(storage, 2, values.shape)
            continue
        storages.append(Storage(str(len(storages)), values.astype(dtype).ravel()))
        tensors[name] = Tensor(storages[-1], 0, values.shape)
    storages.append(Storage(str(len(storages)), np.array([7], np.int64)))
    tensors["in1.num_batches_tracked"] = Tensor(storages[-1], 0, ())
    return tensors, storages


def dump(thing, legacy=False):
    out = io.BytesIO()
    Pickler(out, legacy).dump(thing)
    return out.getvalue()


def write_zip(path, dtype, wrap=lambda tensors: tensors):
    tensors, storages = dictionary(dtype)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("net/data.pkl", dump(wrap(tensors)))
        archive.writestr("net/byteorder", "little")
        for storage in storages:
            archive.writestr(f"net/data/{storage.key}", storage.values.tobytes())
        archive.writestr("net/version", "3\n")


def write_legacy(path):
    tensors, storages = dictionary()
    with open(path, "wb") as out:
        for thing in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}):
            out.write(pickle.dumps(thing, protocol=2))
        out.write(dump(tensors, legacy=True))
        out.write(pickle.dumps([storage.key for storage in storages], protocol=2))
        for storage in storages:
            out.write(struct.pack("<q", len(storage.values)) + storage.values.tobytes())


def write_onnx(path):
    from onnx import TensorProto, helper, numpy_helper, save

    convs, norms = layers()
    values = state()
    nodes, tensors, at = [], [], "picture"

    def give(name, number):
        # Exporters rename: the names say nothing of the layer.
        renamed = f"onnx::{number}"
        if number % 5 == 0:
            nodes.append(helper.make_node("Constant", [], [renamed], value=numpy_helper.from_array(values[name], "")))
        elif number % 7 == 0:
            tensors.append(helper.make_tensor(renamed, TensorProto.FLOAT, values[name].shape, values[name].ravel().tolist()))
        else:
            tensors.append(numpy_helper.from_array(values[name], renamed))
        return renamed

    number = 0
    for index, (name, _, _, kernel) in enumerate(convs):
        inputs = [give(f"{name}.conv2d.weight", number), give(f"{name}.conv2d.bias", number + 1)]
        nodes.append(helper.make_node("Conv", [at, *inputs], [f"c{index}"], kernel_shape=[kernel, kernel]))
        at, number = f"c{index}", number + 2
        if index < len(norms):
            inputs = [give(f"{norms[index][0]}.weight", number), give(f"{norms[index][0]}.bias", number + 1)]
            nodes.append(helper.make_node("InstanceNormalization", [at, *inputs], [f"n{index}"]))
            at, number = f"n{index}", number + 2
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, 32, 32])
    result = helper.make_tensor_value_info(at, TensorProto.FLOAT, None)
    save(helper.make_model(helper.make_graph(nodes, "net", [picture], [result], tensors)), path)


if __name__ == "__main__":
    folder = sys.argv[1]
    write_zip(f"{folder}/zip.pth", np.float32)
    write_zip(f"{folder}/half-nested.pth", np.float16, lambda tensors: {"epoch": 3, "state_dict": tensors})
    write_legacy(f"{folder}/legacy.pth")
    write_onnx(f"{folder}/graph.onnx")
    with open(f"{folder}/hostile.pth", "wb") as out:
        class Call:
            def __reduce__(self):
                return __import__("os").system, ("touch pickle-was-run",)
        for thing in (0x1950A86A20F9469CFC6C, 1001, {}):
            out.write(pickle.dumps(thing, protocol=2))
        out.write(pickle.dumps({"conv1.conv2d.weight": Call()}, protocol=2))
