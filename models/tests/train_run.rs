//! Whole trainings on small generated pictures: the loss falls, a killed training ends in the same weights, and the file that
//! comes out computes what was trained.
#![cfg(feature = "train")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use restyle_models::train::{
    Control, Length, Photo, PhotoSet, Progress, TrainConfig, TrainError, TrainErrorKind, Trainer, TransformerNetwork,
    checkpoint_path, export, import, run,
};
use restyle_models::vgg::FeatureNetwork;

/// Smooth colour fields with edges: something to keep as content.
fn scene(width: usize, height: usize, kind: usize) -> Photo {
    let mut rgb = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            let (u, v) = (x as f32 / width as f32, y as f32 / height as f32);
            let edge = if (x / (20 + 7 * kind) + y / (30 + 3 * kind)).is_multiple_of(2) { 0.3 } else { 0.0 };
            let wave = ((u * 5.0 + kind as f32).sin() * (v * 4.0).cos() + 1.0) / 2.0;
            for channel in 0..3 {
                let mixed = match (channel + kind) % 3 {
                    0 => u,
                    1 => v,
                    _ => wave,
                };
                rgb.push(((0.7 * mixed + edge) * 255.0) as u8);
            }
        }
    }
    Photo::from_rgb(width, height, rgb)
}

/// Diagonal blue and yellow strokes: a painting with a palette and a texture.
fn painting() -> Photo {
    let stroke = |x: usize, y: usize| ((x as f32 * 0.6 + y as f32 * 0.9).sin() + (x as f32 * 0.21).cos()) / 4.0 + 0.5;
    let pixels = (0..128 * 96).map(|index| stroke(index % 128, index / 128));
    let rgb = pixels.flat_map(|s| [s * 220.0, s * 180.0 + 20.0, (1.0 - s) * 200.0 + 30.0].map(|value| value as u8));
    Photo::from_rgb(128, 96, rgb.collect())
}

fn shared() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = std::env::var_os("RESTYLE_SHARED").map_or(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}

fn config(folder: &Path) -> TrainConfig {
    let path = |name: &str| folder.join(name);
    let mut config = TrainConfig::new(
        "strokes",
        path("painting.png"),
        path("photos"),
        path("features.safetensors"),
        path("out.safetensors"),
    );
    config.crop = 64;
    config.style_size = 96;
    config
}

/// The same for a small network for any style; its paintings are the photos.
fn any_config(folder: &Path) -> TrainConfig {
    let config = config(folder);
    TrainConfig { any: true, style: config.photos.clone(), width: 4, ..config }
}

/// Mean of the total loss over the first and the last tenth of `steps` steps.
fn train_for(trainer: &mut Trainer, steps: u32) -> (f32, f32) {
    let totals: Vec<f32> = (0..steps).map(|_| trainer.step(steps, 0).unwrap().total).collect();
    let tenth = totals.len() / 10;
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    (mean(&totals[..tenth]), mean(&totals[totals.len() - tenth..]))
}

#[test]
fn two_hundred_steps_on_four_photos_nearly_halve_the_loss() {
    let photos = PhotoSet::from_photos((0..4).map(|kind| scene(130, 110, kind)).collect());
    let features = FeatureNetwork::random([8, 12, 16, 24], 3).unwrap();
    let mut trainer = Trainer::new(config(Path::new("")), features, &painting(), photos).unwrap();
    let (first, last) = train_for(&mut trainer, 200);
    assert!(last < first / 1.8, "from {first} to {last}");
}

#[test]
fn two_hundred_steps_for_any_style_lower_the_loss() {
    let photos = || PhotoSet::from_photos((0..4).map(|kind| scene(130, 110, kind)).collect());
    let features = FeatureNetwork::random([8, 12, 16, 24], 3).unwrap();
    let mut config = any_config(Path::new(""));
    config.rate = 2e-3;
    let mut trainer = Trainer::any(config, features, PhotoSet::from_photos(vec![painting()]), photos()).unwrap();
    let (first, last) = train_for(&mut trainer, 200);
    assert!(last < first / 2.0, "from {first} to {last}");
}

#[test]
#[allow(clippy::print_stderr)]
fn real_features_and_photos_lower_the_loss_too() {
    let Some(shared) = shared() else {
        eprintln!("skipped: no shared data (set RESTYLE_SHARED)");
        return;
    };
    let weights = std::fs::read(shared.join("weights/vgg19-16x-distilled/4SE.safetensors")).unwrap();
    let names = ["000000000030", "000000000071", "000000000073", "000000000092"];
    let photo = |name| Photo::read(&shared.join(format!("photos/coco-subset/{name}.jpg")), Some(110)).unwrap();
    let photos = PhotoSet::from_photos(names.map(photo).to_vec());
    let style = Photo::read(&shared.join("styles/starry_night.jpg"), Some(128)).unwrap();
    let mut trainer =
        Trainer::new(config(Path::new("")), FeatureNetwork::load(&weights).unwrap(), &style, photos).unwrap();
    let (first, last) = train_for(&mut trainer, 120);
    assert!(last < first / 1.6, "from {first} to {last}");
}

/// A folder with a painting, photos and the reference test's small feature network.
fn workplace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    std::fs::create_dir(&config.photos).unwrap();
    Photo::write(&painting().to_tensor().unwrap(), &config.style).unwrap();
    for kind in 0..3 {
        let path = config.photos.join(format!("{kind}.png"));
        Photo::write(&scene(100, 90, kind).to_tensor().unwrap(), &path).unwrap();
    }
    std::fs::write(&config.features, include_bytes!("train_reference.safetensors")).unwrap();
    folder
}

/// Runs with a clock that stands still, stopping after iteration `stop`.
fn run_to(config: &TrainConfig, stop: Option<u32>) -> Result<bool, TrainError> {
    let report = run(config, "restyle train", &|| Duration::ZERO, &mut |progress| {
        assert!(progress.losses.total.is_finite() && progress.iteration <= progress.iterations);
        if Some(progress.iteration) == stop { Control::Stop } else { Control::Continue }
    })?;
    assert_eq!(report.finished, report.digest.is_some());
    Ok(report.finished)
}

#[test]
fn a_stopped_training_ends_in_the_same_bytes() {
    let folder = workplace();
    for config in [config(folder.path()), any_config(folder.path())] {
        stopped_ends_as_undisturbed(config);
    }
}

fn stopped_ends_as_undisturbed(mut config: TrainConfig) {
    config.length = Length::Iterations { main: 6, steady: 4 };
    config.width = 4;
    assert!(run_to(&config, None).unwrap());
    let undisturbed = std::fs::read(&config.out).unwrap();
    for stop in [1, 5, 6, 8] {
        std::fs::remove_file(&config.out).unwrap();
        assert!(!run_to(&config, Some(stop)).unwrap());
        assert!(checkpoint_path(&config.out).exists() && !config.out.exists());
        assert!(run_to(&config, None).unwrap());
        assert!(!checkpoint_path(&config.out).exists());
        assert!(std::fs::read(&config.out).unwrap() == undisturbed, "stopped after {stop}");
    }
}

#[test]
fn a_training_can_start_from_another_style() {
    let folder = workplace();
    let mut config = config(folder.path());
    (config.length, config.width) = (Length::Iterations { main: 3, steady: 0 }, 4);
    assert!(run_to(&config, None).unwrap());
    let start = std::fs::read(&config.out).unwrap();
    let network = TransformerNetwork::new(4, 99).unwrap();
    import(network.variables(), &start).unwrap();
    let card = serde_json::Value::Null;
    let again = TransformerNetwork::new(4, 7).unwrap();
    import(again.variables(), &export(network.variables(), &card).unwrap()).unwrap();
    for ((name, a), (_, b)) in network.variables().iter().zip(again.variables()) {
        let (a, b) = [a, b].map(|variable| variable.flatten_all().unwrap().to_vec1::<f32>().unwrap()).into();
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-3 * a.abs().max(1e-3)), "{name}");
    }
    config.start = Some(config.out.clone());
    config.out = folder.path().join("second.safetensors");
    assert!(run_to(&config, None).unwrap());
    assert!(std::fs::read(&config.out).unwrap() != start);
    config.width = 8;
    let error = run_to(&config, None).unwrap_err();
    assert!(error.to_string().contains("is the width the same?"), "{error}");
}

#[test]
fn a_checkpoint_of_another_training_is_refused() {
    let folder = workplace();
    let mut config = config(folder.path());
    config.length = Length::Iterations { main: 4, steady: 0 };
    config.width = 2;
    assert!(!run_to(&config, Some(2)).unwrap());
    let of_any = TrainConfig { any: true, style: config.photos.clone(), ..config.clone() };
    assert_eq!(run_to(&of_any, None).unwrap_err().kind(), TrainErrorKind::Checkpoint);
    config.seed = 9;
    let error = run_to(&config, None).unwrap_err();
    assert_eq!(error.kind(), TrainErrorKind::Checkpoint);
    assert!(error.to_string().contains("belongs to a training with another painting"), "{error}");
    let saved = checkpoint_path(&config.out);
    let bytes = std::fs::read(&saved).unwrap();
    for length in [0, 7, 40, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&saved, &bytes[..length]).unwrap();
        let error = run_to(&config, None).unwrap_err();
        assert_eq!(error.kind(), TrainErrorKind::Checkpoint, "{length} bytes: {error}");
    }
}

/// A clock that says each look at it is 50 ms after the last.
fn ticking() -> impl Fn() -> Duration {
    let ticks = std::cell::Cell::new(0_u32);
    move || {
        ticks.set(ticks.get() + 1);
        Duration::from_millis(50) * ticks.get()
    }
}

#[test]
fn a_length_in_time_becomes_a_number_of_iterations() {
    let folder = workplace();
    let mut config = config(folder.path());
    config.length = Length::Time(Duration::from_secs(6));
    config.width = 1;
    // 6 s are then about a hundred iterations.
    let clock = ticking();
    let report = run(&config, "restyle train", &clock, &mut |_| Control::Continue).unwrap();
    assert!(report.finished && (80..=120).contains(&report.iterations), "{report:?}");
}

#[test]
fn a_length_in_time_that_is_stopped_early_is_gone_on_with_in_full() {
    let folder = workplace();
    let mut config = config(folder.path());
    config.length = Length::Time(Duration::from_secs(6));
    config.width = 1;
    let clock = ticking();
    let stop = |progress: &Progress| if progress.iteration == 5 { Control::Stop } else { Control::Continue };
    let stopped = run(&config, "restyle train", &clock, &mut |progress| stop(progress)).unwrap();
    assert!(!stopped.finished && stopped.iterations == 5, "{stopped:?}");
    let report = run(&config, "restyle train", &clock, &mut |_| Control::Continue).unwrap();
    assert!(report.finished && (70..=120).contains(&report.iterations), "{report:?}");
}

#[test]
fn a_forgotten_checkpoint_is_not_gone_on_with_but_may_be_started_from() {
    let folder = workplace();
    let mut config = config(folder.path());
    (config.length, config.width) = (Length::Iterations { main: 4, steady: 0 }, 2);
    assert!(!run_to(&config, Some(3)).unwrap());
    config.fresh = true;
    config.start = Some(checkpoint_path(&config.out));
    let first = std::cell::Cell::new(None);
    let report = run(&config, "restyle train", &|| Duration::ZERO, &mut |progress| {
        first.set(first.get().or(Some(progress.iteration)));
        Control::Continue
    });
    assert!(report.unwrap().finished);
    assert_eq!(first.get(), Some(1));
}

#[test]
fn a_preview_that_cannot_be_written_stops_nothing() {
    let folder = workplace();
    let mut config = config(folder.path());
    (config.length, config.width) = (Length::Iterations { main: 2, steady: 0 }, 2);
    (config.preview, config.preview_every) = (Some(config.style.clone()), 1);
    std::fs::create_dir(config.out.with_extension("000001.png")).unwrap();
    let mut told = Vec::new();
    let report = run(&config, "restyle train", &|| Duration::ZERO, &mut |progress| {
        told.push(progress.preview.clone().expect("a preview is due"));
        Control::Continue
    });
    assert!(report.unwrap().finished);
    let reason = told[0].as_ref().unwrap_err();
    assert!(reason.contains("000001.png"), "{reason}");
    assert!(told[1].as_ref().unwrap().exists());
}

#[test]
fn an_output_that_cannot_be_written_is_refused_before_the_first_iteration() {
    let folder = workplace();
    let mut config = config(folder.path());
    config.out = folder.path().join("absent/out.safetensors");
    let error = run(&config, "restyle train", &|| Duration::ZERO, &mut |_| panic!("no iteration")).unwrap_err();
    assert_eq!(error.kind(), TrainErrorKind::Io);
    assert!(error.to_string().contains("absent"), "{error}");
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let folder = workplace();
    let good = config(folder.path());
    let check = |change: &dyn Fn(&mut TrainConfig), kind: TrainErrorKind, part: &str| {
        let mut config = good.clone();
        change(&mut config);
        let error = run_to(&config, Some(1)).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    check(&|config| config.width = 0, TrainErrorKind::Config, "width 0");
    check(&|config| config.crop = 100, TrainErrorKind::Config, "crop 100");
    check(&|config| config.steady_noise = 0.5, TrainErrorKind::Config, "steady noise 0.5");
    let endless = Length::Iterations { main: u32::MAX, steady: 1000 };
    check(&|config| config.length = endless, TrainErrorKind::Config, "length");
    check(&|config| config.weights.style_levels = vec![1.0; 5], TrainErrorKind::Config, "style levels");
    check(&|config| config.rate = f64::NAN, TrainErrorKind::Config, "rate NaN");
    check(&|config| config.weights.style = -1.0, TrainErrorKind::Config, "loss weights");
    check(&|config| config.style = config.features.clone(), TrainErrorKind::Input, "features.safetensors");
    check(&|config| config.style.push("absent"), TrainErrorKind::Io, "absent");
    check(&|config| config.features = config.style.clone(), TrainErrorKind::Input, "feature network");
    let empty = tempfile::tempdir().unwrap();
    check(&|config| config.photos = empty.path().to_owned(), TrainErrorKind::Config, "no .jpg or .png photo");
}
