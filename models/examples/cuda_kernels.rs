//! Writes the source of every CUDA kernel that a style needs, one file each, for a compiler to look at; needs no card.
//!
//! usage: cuda_kernels FOLDER [weights.safetensors]

use restyle_models::cuda::frames::{Framed, Job};
use restyle_models::cuda::{Network, Precision};
use restyle_models::pixels::PixelFormat;
use restyle_models::{StyleWeights, shipped};
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = args.next().ok_or("usage: cuda_kernels FOLDER [weights.safetensors]")?;
    let weights = match args.next() {
        Some(path) => StyleWeights::load(&std::fs::read(path)?)?,
        None => StyleWeights::load(shipped::ALL[0].bytes)?,
    };
    std::fs::create_dir_all(&folder)?;
    let ten = PixelFormat { bits: 10, ..PixelFormat::YUV420P8 };
    for precision in [Precision::Bf16, Precision::PlainBf16, Precision::F32] {
        let network = Network::pack(&weights, precision)?;
        for format in [PixelFormat::YUV420P8, ten] {
            let job = Job { images: 1, width: 1920, height: 1080, scored: (960, 540), input: format, output: format };
            for kernel in Framed::plan(&network, &job).program.kernels {
                std::fs::write(folder.join(format!("{}.cu", kernel.module())), kernel.source())?;
            }
        }
    }
    Ok(())
}
