//! Trains a style from the command line: `train NAME PAINTING PHOTOS FEATURES OUT [key=value ...]`.
//!
//! Keys: width, crop, style-size, main, steady, minutes, seed, rate, steady-rate, content, style, levels (a,b,c,d),
//! variation, range, steadiness, start, checkpoint-every, preview, preview-every. See `TrainConfig` for what they mean.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use restyle_models::train::{Control, Length, Progress, TrainConfig, run};

type Failure = Box<dyn std::error::Error>;

// This program is the clock's owner here; the library reads none.
#[allow(clippy::disallowed_methods)]
fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, style, photos, features, out, settings @ ..] = arguments.as_slice() else {
        return Err("usage: train NAME PAINTING PHOTOS FEATURES OUT [key=value ...]".into());
    };
    let paths = [style, photos, features, out].map(PathBuf::from);
    let [style, photos, features, out] = paths;
    let mut config = TrainConfig::new(name, style, photos, features, out);
    for setting in settings {
        set(&mut config, setting)?;
    }
    let command = format!("train {name} {}", settings.join(" "));
    let origin = std::time::Instant::now();
    let mut last = Duration::ZERO;
    let report = run(&config, &command, &|| origin.elapsed(), &mut |progress| {
        let due = origin.elapsed() >= last + Duration::from_secs(5);
        if due || progress.iteration == progress.iterations {
            last = origin.elapsed();
            let _ = print(progress);
        }
        Control::Continue
    })?;
    let digest = report.digest.unwrap_or_default();
    writeln!(std::io::stderr(), "wrote {} ({} iterations, blake3 {digest})", config.out.display(), report.iterations)?;
    Ok(())
}

fn print(progress: &Progress) -> std::io::Result<()> {
    let mean = progress.mean;
    writeln!(
        std::io::stderr(),
        "{:6}/{} {:.3} s/it, {:4} s left: total {:.4} content {:.4} style {:.5} variation {:.5} range {:.5} steadiness {:.6}",
        progress.iteration,
        progress.iterations,
        progress.iteration_time.as_secs_f64(),
        progress.remaining.as_secs(),
        mean.total,
        mean.content,
        mean.style,
        mean.variation,
        mean.range,
        mean.steadiness,
    )
}

fn set(config: &mut TrainConfig, setting: &str) -> Result<(), Failure> {
    let (key, value) = setting.split_once('=').ok_or("expected key=value")?;
    let (mut main, mut steady) = match config.length {
        Length::Iterations { main, steady } => (main, steady),
        Length::Time(_) => (0, 0),
    };
    match key {
        "width" => config.width = value.parse()?,
        "crop" => config.crop = value.parse()?,
        "style-size" => config.style_size = value.parse()?,
        "main" => main = value.parse()?,
        "steady" => steady = value.parse()?,
        "minutes" => config.length = Length::Time(Duration::from_secs_f64(60.0 * value.parse::<f64>()?)),
        "seed" => config.seed = value.parse()?,
        "rate" => config.rate = value.parse()?,
        "steady-rate" => config.steady_rate = value.parse()?,
        "content" => config.weights.content = value.parse()?,
        "style" => config.weights.style = value.parse()?,
        "levels" => {
            config.weights.style_levels = value.split(',').map(str::parse).collect::<Result<_, _>>()?;
        }
        "variation" => config.weights.variation = value.parse()?,
        "range" => config.weights.range = value.parse()?,
        "steadiness" => config.weights.steadiness = value.parse()?,
        "start" => config.start = Some(PathBuf::from(value)),
        "checkpoint-every" => config.checkpoint_every = value.parse()?,
        "preview" => config.preview = Some(PathBuf::from(value)),
        "preview-every" => config.preview_every = value.parse()?,
        _ => return Err(format!("unknown setting {key}").into()),
    }
    if matches!(key, "main" | "steady") {
        config.length = Length::Iterations { main, steady };
    }
    Ok(())
}
