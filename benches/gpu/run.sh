#!/bin/sh
# Sets PyTorch up in a virtual environment outside the tree, builds our side for CUDA and prints every figure of docs/PERFORMANCE.md
# that needs a card. Arguments go to bench.py. WEIGHTS names another style file, CUDA_HOME the toolkit to build with.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
if ! nvidia-smi -L >/dev/null 2>&1; then
    echo "no CUDA device answers here (nvidia-smi): nothing was measured" >&2
    exit 6
fi
venv=${XDG_CACHE_HOME:-$HOME/.cache}/restyle/gpu-venv
weights=${WEIGHTS:-${RESTYLE_SHARED:-$root/../shared}/weights/transformernet/candy.safetensors}
if [ ! -f "$weights" ]; then
    echo "no style file at $weights: set WEIGHTS to one" >&2
    exit 2
fi
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" -p restyle-models --features cuda --examples
cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" --features cuda
target=${CARGO_TARGET_DIR:-$root/target}/release
exec "$venv/bin/python" "$here/bench.py" --program "$target/examples/gpu_bench" \
    --score-alone "$target/examples/score_alone" --restyle "$target/restyle" \
    --weights "$weights" "$@"
