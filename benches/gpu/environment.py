"""What our programs are run with: they find the toolkit's libraries where CUDA_HOME names one; PyTorch, which brings its own, must not."""

import os

_paths = [os.path.join(os.environ["CUDA_HOME"], "lib64")] if os.environ.get("CUDA_HOME") else []
_paths += filter(None, [os.environ.get("LD_LIBRARY_PATH")])
OURS = {**os.environ, "LD_LIBRARY_PATH": ":".join(_paths)}
