//! Runs the transformer network when told to, for scripts that measure it beside other programs.
//!
//! `forward WEIGHTS WIDTH HEIGHT THREADS INPUT OUTPUT [ISA] [--precision reduced]` reads INPUT (f32, three planes of RGB on 0..255), then
//! answers a line on stdin with a line on stdout: `run` after a forward pass, `save` after it wrote the last result to
//! OUTPUT. Reduced precision is calibrated on the picture upside down, so that it meets values it has not seen.
//! It takes no times itself: whoever asks does. The first line on stdout describes the run.

use restyle_models::kernels::Isa;
use restyle_models::pixels::RgbPlanes;
use restyle_models::ranges::Ranges;
use restyle_models::transform_net::TransformNet;
use restyle_models::weights::StyleWeights;
use std::error::Error;
use std::io::{BufRead as _, Write as _};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let reduced = args.ends_with(&["--precision".to_owned(), "reduced".to_owned()]);
    if reduced {
        args.truncate(args.len() - 2);
    }
    let [weights, width, height, threads, input, output, rest @ ..] = args.as_slice() else {
        return Err("usage: forward WEIGHTS WIDTH HEIGHT THREADS INPUT OUTPUT [ISA] [--precision reduced]".into());
    };
    let isa = match rest.first() {
        None => Isa::detect(),
        Some(name) => {
            let known = Isa::available().into_iter().find(|isa| isa.to_string() == *name);
            known.ok_or_else(|| format!("this processor has no {name}"))?
        }
    };
    let weights = StyleWeights::load(&std::fs::read(weights)?)?;
    let rgb = read_planes(&std::fs::read(input)?, width.parse()?, height.parse()?)?;
    let mut out = RgbPlanes::default();
    let mut net = TransformNet::with_isa(&weights, threads.parse()?, isa)?;
    if reduced {
        let (mut ranges, mut turned) = (Ranges::default(), rgb.clone());
        turned.planes.iter_mut().for_each(|plane| plane.reverse());
        net.observe(&turned, &mut out, &mut ranges);
        net = TransformNet::with_ranges(&weights, threads.parse()?, isa, Some(&ranges))?;
    }
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{isa}{}", if reduced { " reduced" } else { "" })?;
    stdout.flush()?;
    for line in std::io::stdin().lock().lines() {
        match line?.as_str() {
            "run" => net.forward(&rgb, &mut out),
            "save" => {
                let bytes: Vec<u8> = out.planes.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
                std::fs::write(output, bytes)?;
            }
            other => return Err(format!("{other:?} is neither run nor save").into()),
        }
        writeln!(stdout, "{}", net.memory_bytes())?;
        stdout.flush()?;
    }
    Ok(())
}

fn read_planes(bytes: &[u8], width: usize, height: usize) -> Result<RgbPlanes, Box<dyn Error>> {
    let (values, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() || values.len() != 3 * width * height {
        return Err(format!("{} bytes are no three planes of {width}x{height} f32", bytes.len()).into());
    }
    let values: Vec<f32> = values.iter().map(|&value| f32::from_le_bytes(value)).collect();
    let plane = |index: usize| values[index * width * height..][..width * height].to_vec();
    Ok(RgbPlanes { width, height, planes: [plane(0), plane(1), plane(2)] })
}
