//! Resizing of RGB planes in f32, for scoring at another width than the picture's.

use crate::ModelError;
use crate::pixels::RgbPlanes;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::F32;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

/// Resizes planes and keeps its working memory between pictures.
#[derive(Default)]
pub struct PlaneResizer {
    resizer: Resizer,
}

impl PlaneResizer {
    /// Makes a resizer without any memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Resizes the top left `from_size` of `from` to fill `out`, which keeps its size.
    ///
    /// Narrowing uses a Lanczos filter of radius 3 stretched to the scale, widening Catmull-Rom.
    ///
    /// # Errors
    /// `Picture` where a size is zero or `from_size` exceeds the planes.
    pub fn resize(
        &mut self,
        from: &RgbPlanes,
        from_size: (usize, usize),
        out: &mut RgbPlanes,
    ) -> Result<(), ModelError> {
        let narrows = out.width < from_size.0 || out.height < from_size.1;
        let filter = if narrows { FilterType::Lanczos3 } else { FilterType::CatmullRom };
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).crop(
            0.0,
            0.0,
            from_size.0 as f64,
            from_size.1 as f64,
        );
        let (width, height) = (out.width as u32, out.height as u32);
        for (from_plane, out_plane) in from.planes.iter().zip(&mut out.planes) {
            let pixels = from_plane.as_slice();
            let refused = |error: String| {
                ModelError::Picture(format!(
                    "cannot resize {}x{} to {width}x{height}: {error}",
                    from_size.0, from_size.1
                ))
            };
            let source = typed(from.width, from.height, pixels).map_err(refused)?;
            let mut target = typed_mut(width, height, out_plane).map_err(refused)?;
            self.resizer.resize_typed(&source, &mut target, &options).map_err(|error| refused(error.to_string()))?;
        }
        Ok(())
    }
}

type Source<'a> = TypedImageRef<'a, F32>;
type Target<'a> = TypedImage<'a, F32>;

fn typed(width: usize, height: usize, pixels: &[f32]) -> Result<Source<'_>, String> {
    TypedImageRef::from_buffer(width as u32, height as u32, bytemuck::cast_slice(pixels))
        .map_err(|error| error.to_string())
}

fn typed_mut(width: u32, height: u32, pixels: &mut [f32]) -> Result<Target<'_>, String> {
    TypedImage::from_buffer(width, height, bytemuck::cast_slice_mut(pixels)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(width: usize, height: usize, size: (usize, usize)) -> RgbPlanes {
        let mut planes = RgbPlanes::new(width, height);
        for y in 0..height {
            for x in 0..width {
                // Positions of sample centres on 0..1, so that every size shows the same picture.
                let (u, v) = ((x as f32 + 0.5) / size.0 as f32, (y as f32 + 0.5) / size.1 as f32);
                planes.planes[0][y * width + x] = 200.0 * u;
                planes.planes[1][y * width + x] = 150.0 * v;
                planes.planes[2][y * width + x] = -30.0 + 300.0 * u;
            }
        }
        planes
    }

    fn check(from: (usize, usize), padded: (usize, usize), to: (usize, usize)) {
        let source = ramp(padded.0, padded.1, from);
        let mut out = RgbPlanes::new(to.0, to.1);
        PlaneResizer::new().resize(&source, from, &mut out).unwrap();
        let expected = ramp(to.0, to.1, to);
        let (mx, my) = (to.0 / 4, to.1 / 4);
        for plane in 0..3 {
            for y in my..to.1 - my {
                for x in mx..to.0 - mx {
                    let (value, expected) = (out.planes[plane][y * to.0 + x], expected.planes[plane][y * to.0 + x]);
                    assert!(
                        (value - expected).abs() < 2.0,
                        "{from:?} to {to:?}, plane {plane} ({x},{y}): {value}, {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn ramps_keep_their_place_and_their_overshoot() {
        check((40, 24), (40, 24), (20, 12));
        check((20, 12), (24, 16), (40, 24));
        check((33, 21), (36, 24), (50, 31));
    }

    #[test]
    fn sizes_outside_the_planes_are_refused() {
        let mut out = RgbPlanes::new(4, 4);
        assert!(PlaneResizer::new().resize(&RgbPlanes::new(8, 8), (9, 8), &mut out).is_err());
    }
}
