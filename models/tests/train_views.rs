//! Views of content photos: what moves, flickers and is noisy in them, and what the steadiness term makes of that.
#![cfg(feature = "train")]

use candle_core::Tensor;
use restyle_models::loss::steadiness_loss;
use restyle_models::train::{Disturbance, Photo, PhotoSet, Random};

const SIZE: usize = 64;

fn photos() -> PhotoSet {
    let rgb = (0..3 * 160 * 120).map(|index: usize| ((index * index / 7) ^ (index / 31)) as u8);
    PhotoSet::from_photos(vec![Photo::from_rgb(160, 120, rgb.collect())])
}

/// Renders view number `stream` as it was drawn, and disturbed.
fn both(stream: u64, disturbance: &Disturbance) -> (Tensor, Tensor) {
    let (photos, mut random) = (photos(), Random::new(3, stream));
    let view = photos.draw(&mut random, SIZE, 7);
    let still = photos.render(&view, SIZE, &Disturbance::default(), &mut random).unwrap();
    (still, photos.render(&view, SIZE, disturbance, &mut random).unwrap())
}

fn mean(values: &Tensor) -> f32 {
    values.mean_all().unwrap().to_scalar().unwrap()
}

#[test]
fn a_moved_view_is_steady_by_its_own_shift_and_by_no_other() {
    // Streams draw mirrored views and such as are not.
    for (stream, shift) in [(0, (3, -5)), (1, (-7, 7)), (2, (0, 1)), (3, (-2, 0)), (4, (6, 6)), (5, (-1, -3))] {
        let (still, moved) = both(stream, &Disturbance { shift, ..Disturbance::default() });
        let loss = |shift| steadiness_loss(&still, &moved, shift).unwrap().to_scalar::<f32>().unwrap();
        assert!(loss(shift) < 1e-9, "stream {stream}: {}", loss(shift));
        assert!(loss((-shift.0, -shift.1)) > 1e-3, "stream {stream}");
    }
}

#[test]
fn flicker_and_noise_reach_the_pixels() {
    let (still, lit) = both(1, &Disturbance { gain: 0.9, lift: 0.02, ..Disturbance::default() });
    // What the view's own light clipped is left out by taking the middle of the range only.
    let expected = still.affine(0.9, 0.02).unwrap();
    assert!((mean(&lit) - mean(&expected)).abs() < 0.01, "{} for {}", mean(&lit), mean(&expected));
    let (still, noisy) = both(1, &Disturbance { noise: 0.01, ..Disturbance::default() });
    let deviation = mean(&(still - noisy).unwrap().sqr().unwrap()).sqrt();
    assert!((0.015..0.022).contains(&deviation), "four sizes of 0.01 less what is clipped: {deviation}");
}

#[test]
fn a_picture_that_would_not_fit_into_memory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("strip.png");
    let strip = Photo::from_rgb(1, 20_000, vec![7; 60_000]);
    strip.save(&path).unwrap();
    assert_eq!(Photo::read(&path, None).unwrap().size(), (1, 20_000));
    let error = Photo::read(&path, Some(512)).unwrap_err().to_string();
    assert!(error.contains("1x20000") && error.contains("strip.png"), "{error}");
}
