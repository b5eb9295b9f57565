//! Scores pictures as a job does, integer planes in and out, and nothing else: what a whole job is measured beside.
//!
//! usage: score_alone cpu|cuda:N weights.safetensors WIDTH HEIGHT
//!
//! Answers every line on stdin with one call of the network and a line on stdout: how many pictures it took. The first line on
//! stdout says the same of the call that warms up. It takes no times itself: whoever asks does.

use restyle_models::pixels::{Picture, PixelFormat, Samples};
use restyle_models::style::PictureShape;
use restyle_models::{DeviceChoice, StyleWeights, StylizeOptions, build};
use std::error::Error;
use std::io::{BufRead, Write};
use std::sync::Arc;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [device, weights, width, height] = args.as_slice() else {
        return Err("usage: score_alone cpu|cuda:N weights.safetensors WIDTH HEIGHT".into());
    };
    let weights = Arc::new(StyleWeights::load(&std::fs::read(weights)?)?);
    let threads = std::thread::available_parallelism()?.get();
    let mut model = build(&weights, &DeviceChoice::parse(device)?, threads)?;
    let picture = busy(width.parse()?, height.parse()?)?;
    let options = StylizeOptions { score_width: None, output: picture.format };
    let batch = vec![&picture; model.make_room(PictureShape::of(&picture), &options)?];
    let mut call = || -> Result<(), Box<dyn Error>> {
        let scored = model.stylize(&batch, &options)?.len();
        writeln!(std::io::stdout(), "{scored}")?;
        Ok(std::io::stdout().flush()?)
    };
    call()?;
    std::io::stdin().lock().lines().try_for_each(|line| line.map_err(Into::into).and_then(|_| call()))
}

/// A picture of 8 bits and 4:2:0 in which no two neighbours are equal.
fn busy(width: u32, height: u32) -> Result<Picture, Box<dyn Error>> {
    let mut picture = Picture::zeroed(PixelFormat::YUV420P8, width, height)?;
    for plane in &mut picture.planes {
        if let Samples::U8(samples) = &mut plane.samples {
            samples.iter_mut().enumerate().for_each(|(at, sample)| *sample = (at * 37 % 219 + 16) as u8);
        }
    }
    Ok(picture)
}
