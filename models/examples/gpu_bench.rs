//! Times the network on a card, layer by layer and whole, and writes its raw output; benches/gpu/bench.py drives it.
//!
//! usage: gpu_bench cuda:N weights.safetensors WIDTH HEIGHT IMAGES bf16|f32 in.f32 out.f32
//!
//! `in.f32` holds planes of RGB on 0..255, one picture after the other. Prints one JSON object.

use restyle_models::cuda::machine::{Machine, address};
use restyle_models::cuda::{Buffer, Network, Precision, Program, Size};
use restyle_models::{DeviceChoice, StyleWeights};
use serde_json::json;
use std::error::Error;
use std::io::Write;

/// Launches before and while the clock runs.
const WARM_UP: usize = 10;
const TIMED: usize = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [device, weights, width, height, images, precision, input, output] = args.as_slice() else {
        return Err("usage: gpu_bench cuda:N weights WIDTH HEIGHT IMAGES bf16|f32 in.f32 out.f32".into());
    };
    let DeviceChoice::Cuda(ordinal) = DeviceChoice::parse(device)? else { return Err("name a card: cuda:0".into()) };
    let precision = if precision == "f32" { Precision::F32 } else { Precision::Bf16 };
    let size = Size { images: images.parse()?, height: height.parse()?, width: width.parse()? };

    let network = Network::pack(&StyleWeights::load(&std::fs::read(weights)?)?, precision)?;
    let machine = Machine::open(ordinal)?;
    let mut program = Program::default();
    let rgb = program.reserve(size.images * 3 * size.width * size.height * 4);
    let raw = program.reserve(size.images * 3 * size.width.div_ceil(4) * size.height.div_ceil(4) * 16 * 4);
    network.forward(&mut program, size, rgb, raw);
    let constants = network.constants().iter().map(|bytes| machine.hold(bytes)).collect::<Result<Vec<_>, _>>()?;
    let input = std::fs::read(input)?;
    let work = program.work.iter().enumerate().map(|(at, work)| match Buffer::Work(at) {
        buffer if buffer == rgb => machine.hold(&input),
        _ => machine.allocate(work.bytes),
    });
    let work = work.collect::<Result<Vec<_>, _>>()?;
    let memory = |buffer| match buffer {
        Buffer::Constant(at) => address(&constants[at]),
        Buffer::Work(at) => address(&work[at]),
    };
    let mut loaded = machine.load(&program, &memory)?;
    // The f32 path is the reference, not a contender: it runs once, for its output.
    let is_timed = precision == Precision::Bf16;
    let (warm_up, times) = if is_timed { (WARM_UP, TIMED) } else { (0, 1) };
    loaded.milliseconds(warm_up)?;
    let whole = loaded.milliseconds(times)?;
    let mut steps = Vec::new();
    for _ in 0..if is_timed { 2 } else { 0 } {
        steps = loaded.timed()?;
    }
    let Buffer::Work(raw) = raw else { return Err("the output is no memory of the program".into()) };
    std::fs::write(output, machine.device().clone_dtoh(&work[raw])?)?;
    let costs: Vec<_> =
        network.costs(size).into_iter().map(|(name, flops, bytes)| json!([name, flops, bytes])).collect();
    let report = json!({
        "card": machine.card().to_string(),
        "milliseconds": whole,
        "work_bytes": program.work_bytes(),
        "steps": steps,
        "costs": costs,
    });
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}
