#!/bin/sh
# Sets up ONNX Runtime and OpenVINO in a virtual environment outside the tree, builds our side and prints the ratios.
# Arguments go to bench.py. WEIGHTS names another style file.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=${XDG_CACHE_HOME:-$HOME/.cache}/restyle/peers-venv
weights=${WEIGHTS:-${RESTYLE_SHARED:-$root/../shared}/weights/transformernet/candy.safetensors}
if [ ! -f "$weights" ]; then
    echo "no style file at $weights: set WEIGHTS to one" >&2
    exit 2
fi
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
cargo build --quiet --release --manifest-path "$root/Cargo.toml" -p restyle-models --example forward
target=${CARGO_TARGET_DIR:-$root/target}
exec "$venv/bin/python" "$here/bench.py" --program "$target/release/examples/forward" --weights "$weights" "$@"
