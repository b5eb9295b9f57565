# Two commands: `make run` styles a clip, `make test` runs every test. Both install what is missing.
# make run IN=my.mp4 OUT=styled.mp4 STYLE=name   styles one's own clip.

IN    ?=
STYLE ?= starry-night
OUT   ?= out/$(STYLE).mp4
CARGO ?= cargo
export CARGO_INCREMENTAL ?= 0

.PHONY: run test check fmt deps clean dashboard bench-peers bench-jobs bench-ledger bench-gpu check-kernels check-gpu

deps:
	@scripts/install-deps

run: deps
	@mkdir -p "$(dir $(OUT))"
ifeq ($(strip $(IN)),)
	@test -f out/clip.mp4 || scripts/make-clip out/clip.mp4
	$(CARGO) run --release --locked -- run out/clip.mp4 "$(OUT)" --style $(STYLE)
else
	$(CARGO) run --release --locked -- run "$(IN)" "$(OUT)" --style "$(STYLE)"
endif

test: deps
	@scripts/install-test-servers
	$(CARGO) test --workspace --locked --features faults,train

check: deps fmt
	@scripts/install-test-servers
	scripts/check-cuda
	$(CARGO) clippy --workspace --all-targets --locked --features faults,train -- -D warnings
	$(CARGO) test --workspace --locked --features faults,train
	@if command -v cargo-deny >/dev/null; then cargo deny check bans licenses sources; else echo "cargo-deny is not installed: skipped"; fi

fmt:
	$(CARGO) fmt --all --check

# The pages of `restyle serve`, from dashboard/src into dashboard/dist, which the program embeds; needs Node.js 20 or newer.
dashboard:
	@cd dashboard && npm ci --no-audit --no-fund && npm run build

# The network beside ONNX Runtime and OpenVINO; BENCH_ARGS go to benches/peers/bench.py.
bench-peers:
	@benches/peers/run.sh $(BENCH_ARGS)

# Whole jobs beside scoring alone and beside what else styles a video: BENCH_ARGS="--frames 64".
bench-jobs:
	@benches/jobs/run.sh $(BENCH_ARGS)

# What the ledger costs a job: BENCH_ARGS="clip.mp4 --style style.safetensors".
bench-ledger:
	$(CARGO) build --release --locked
	@python3 benches/ledger/run.py --program "$${CARGO_TARGET_DIR:-target}/release/restyle" $(BENCH_ARGS)

# The network on a card, layer by layer and whole, beside PyTorch; needs a card. BENCH_ARGS go to benches/gpu/bench.py.
bench-gpu:
	@benches/gpu/run.sh $(BENCH_ARGS)

# Compiles every kernel with NVRTC; needs scripts/cuda-home, no card.
check-kernels:
	@scripts/check-kernels

# What needs a card: its tests, and compute-sanitizer over them where that is installed.
check-gpu:
	@scripts/check-gpu

clean:
	$(CARGO) clean
