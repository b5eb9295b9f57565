//! Scalar code that says what the kernels must compute, without regard to time.

use super::extent::{Extent, reflect};
use crate::weights::ConvWeights;

/// Values by channel, row, column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Planar {
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) values: Vec<f32>,
}

impl Planar {
    pub(crate) fn new(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width, values: vec![0.0; channels * height * width] }
    }

    pub(crate) fn get(&self, channel: usize, y: usize, x: usize) -> f32 {
        self.values[(channel * self.height + y) * self.width + x]
    }

    /// Lays the values out as the kernels want them; whatever has no meaning is NaN except the padding channels.
    pub(crate) fn packed(&self, lanes: usize) -> (Extent, Vec<f32>) {
        let extent = Extent::new(self.height, self.width, self.channels, lanes);
        let mut values = vec![f32::NAN; extent.len()];
        for y in 0..self.height {
            for x in 0..self.width {
                for channel in 0..extent.pixel_stride {
                    let inside = channel < self.channels;
                    values[extent.at(y, x, channel)] = if inside { self.get(channel, y, x) } else { 0.0 };
                }
            }
        }
        (extent, values)
    }

    /// Takes values out of the kernels' layout.
    pub(crate) fn unpacked(extent: Extent, values: &[f32]) -> Self {
        let mut planar = Self::new(extent.channels, extent.height, extent.width);
        for channel in 0..extent.channels {
            for y in 0..extent.height {
                for x in 0..extent.width {
                    planar.values[(channel * extent.height + y) * extent.width + x] = values[extent.at(y, x, channel)];
                }
            }
        }
        planar
    }

    /// Repeats every pixel twice along both axes.
    pub(crate) fn doubled(&self) -> Self {
        let mut out = Self::new(self.channels, self.height * 2, self.width * 2);
        for channel in 0..self.channels {
            for y in 0..out.height {
                for x in 0..out.width {
                    out.values[(channel * out.height + y) * out.width + x] = self.get(channel, y / 2, x / 2);
                }
            }
        }
        out
    }

    /// Convolves with mirrored borders, in f64, without the bias.
    pub(crate) fn convolved(&self, weights: &ConvWeights, stride: usize) -> Self {
        let size = weights.kernel_size;
        let pad = (size / 2) as isize;
        let mut out = Self::new(weights.out_channels, self.height.div_ceil(stride), self.width.div_ceil(stride));
        for o in 0..out.channels {
            for y in 0..out.height {
                for x in 0..out.width {
                    let mut sum = 0.0;
                    for i in 0..self.channels {
                        for ky in 0..size {
                            for kx in 0..size {
                                let sy = reflect((y * stride + ky) as isize - pad, self.height);
                                let sx = reflect((x * stride + kx) as isize - pad, self.width);
                                let weight = weights.kernel[((o * self.channels + i) * size + ky) * size + kx];
                                sum += f64::from(weight) * f64::from(self.get(i, sy, sx));
                            }
                        }
                    }
                    out.values[(o * out.height + y) * out.width + x] = sum as f32;
                }
            }
        }
        out
    }

    /// Returns mean and variance of a channel.
    pub(crate) fn moments(&self, channel: usize) -> (f64, f64) {
        let count = self.height * self.width;
        let values = self.values[channel * count..][..count].iter().map(|&value| f64::from(value));
        let mean = values.clone().sum::<f64>() / count as f64;
        (mean, values.map(|value| (value - mean).powi(2)).sum::<f64>() / count as f64)
    }

    /// Applies a scale and a shift to each channel.
    pub(crate) fn scaled(&self, scale: &[f32], shift: &[f32]) -> Self {
        let mut out = self.clone();
        for (channel, plane) in out.values.chunks_exact_mut(self.height * self.width).enumerate() {
            plane.iter_mut().for_each(|value| *value = *value * scale[channel] + shift[channel]);
        }
        out
    }

    pub(crate) fn relu(&self) -> Self {
        let mut out = self.clone();
        out.values.iter_mut().for_each(|value| *value = value.max(0.0));
        out
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.values.iter_mut().zip(&other.values).for_each(|(value, other)| *value += other);
        out
    }

    /// Returns the root mean square of all values.
    pub(crate) fn rms(&self) -> f64 {
        let sum: f64 = self.values.iter().map(|&value| f64::from(value).powi(2)).sum();
        (sum / self.values.len() as f64).sqrt()
    }

    /// Returns the root mean square of the differences to another array of the same shape.
    pub(crate) fn distance_rms(&self, other: &Self) -> f64 {
        let squares = self.values.iter().zip(&other.values).map(|(a, b)| f64::from(a - b).powi(2));
        (squares.sum::<f64>() / self.values.len() as f64).sqrt()
    }

    /// Panics unless every value is within `tolerance` times the expected root mean square.
    pub(crate) fn assert_close(&self, expected: &Self, tolerance: f64, what: &str) {
        let size = |p: &Self| (p.channels, p.height, p.width);
        assert_eq!(size(self), size(expected), "{what}");
        let bound = tolerance * expected.rms().max(1e-3);
        for (at, (value, wanted)) in self.values.iter().zip(&expected.values).enumerate() {
            let error = f64::from((value - wanted).abs());
            assert!(error <= bound, "{what}: value {at} is {value}, expected {wanted} within {bound:e}");
        }
    }
}
