#!/bin/sh
# Sets up the peers in a virtual environment outside the tree, builds our side and times whole jobs.
# Arguments go to bench.py. WEIGHTS names another style file, CLIP another clip.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
shared=${RESTYLE_SHARED:-$root/../shared}
venv=${XDG_CACHE_HOME:-$HOME/.cache}/restyle/peers-venv
weights=${WEIGHTS:-$shared/weights/transformernet/candy.safetensors}
clip=${CLIP:-$shared/media-dev/bbb-h264-aac51-720p.mp4}
for file in "$weights" "$clip"; do
    if [ ! -f "$file" ]; then
        echo "there is no $file: set WEIGHTS and CLIP" >&2
        exit 2
    fi
done
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$root/benches/peers/requirements.txt" -r "$here/requirements.txt"
cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml"
cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" -p restyle-models --example forward
target=${CARGO_TARGET_DIR:-$root/target}/release
exec "$venv/bin/python" "$here/bench.py" --restyle "$target/restyle" --forward "$target/examples/forward" \
    --weights "$weights" --clip "$clip" "$@"
