//! Resampling of subsampled chroma along one axis, each sample at its true place.
//!
//! Upsampling is linear interpolation between chroma sites. Downsampling is a box over the luma group where the
//! site lies in its middle and a triangle where it lies on a luma sample, so that neither shifts the picture.

use super::format::AxisSite;

/// One output as a weighted pair of inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LinearTap {
    pub(crate) first: usize,
    pub(crate) second: usize,
    /// Weight of `second`; `first` has the rest.
    pub(crate) weight: f32,
}

/// Returns which two chroma samples give the value at luma position `at`, `len` chroma samples in all.
#[inline(always)]
pub(crate) fn upsample_tap(at: usize, len: usize, factor: u32, site: AxisSite) -> LinearTap {
    let position = (at as f32 - site.offset(factor)) / factor as f32;
    let floor = position.floor();
    let clamp = |index: f32| (index.max(0.0) as usize).min(len - 1);
    LinearTap { first: clamp(floor), second: clamp(floor + 1.0), weight: position - floor }
}

/// Widens a row of chroma to luma width. `factor` 1 copies.
#[inline(always)]
pub(crate) fn upsample_row(chroma: &[f32], out: &mut [f32], factor: u32, site: AxisSite) {
    match factor {
        1 => out.copy_from_slice(&chroma[..out.len()]),
        2 => upsample_row_twice(chroma, out, site),
        _ => upsample_span(chroma, out, 0, factor, site),
    }
}

/// Writes `out` as if it began at luma position `start`, sample by sample.
#[inline(always)]
fn upsample_span(chroma: &[f32], out: &mut [f32], start: usize, factor: u32, site: AxisSite) {
    for (at, out) in out.iter_mut().enumerate() {
        let tap = upsample_tap(start + at, chroma.len(), factor, site);
        *out = blend(chroma[tap.first], chroma[tap.second], tap.weight);
    }
}

#[inline(always)]
fn blend(first: f32, second: f32, weight: f32) -> f32 {
    first + (second - first) * weight
}

/// The common factor, in loops that vectorise; the ends go by the general rule.
#[inline(always)]
fn upsample_row_twice(chroma: &[f32], out: &mut [f32], site: AxisSite) {
    let pairs = (out.len() / 2).min(chroma.len()).saturating_sub(2);
    if pairs == 0 {
        return upsample_span(chroma, out, 0, 2, site);
    }
    let even = upsample_tap(2, chroma.len(), 2, site);
    let odd = upsample_tap(3, chroma.len(), 2, site);
    let (head, rest) = out.split_at_mut(2);
    let (middle, tail) = rest.split_at_mut(2 * pairs - 2);
    upsample_span(chroma, head, 0, 2, site);
    // Taps of pair k are those of pair 1 moved by k - 1, all inside the row.
    let count = pairs - 1;
    let (e0, e1) = (&chroma[even.first..][..count], &chroma[even.second..][..count]);
    let (o0, o1) = (&chroma[odd.first..][..count], &chroma[odd.second..][..count]);
    for (k, pair) in middle.chunks_exact_mut(2).enumerate() {
        pair[0] = blend(e0[k], e1[k], even.weight);
        pair[1] = blend(o0[k], o1[k], odd.weight);
    }
    upsample_span(chroma, tail, 2 * pairs, 2, site);
}

/// Weights of the luma samples around a chroma sample, for one axis.
#[derive(Clone, Debug)]
pub(crate) struct DownsampleFilter {
    factor: u32,
    /// Distance of the first weight from the group's first luma sample.
    start: isize,
    weights: Vec<f32>,
}

impl DownsampleFilter {
    /// Makes the filter of a subsampling by `factor` with chroma at `site`.
    pub(crate) fn new(factor: u32, site: AxisSite) -> Self {
        let count = factor as usize;
        if factor == 1 {
            return Self { factor, start: 0, weights: vec![1.0] };
        }
        if site == AxisSite::Middle {
            return Self { factor, start: 0, weights: vec![1.0 / factor as f32; count] };
        }
        let reach = count as isize - 1;
        let scale = 1.0 / (factor * factor) as f32;
        let weights = (-reach..=reach).map(|d| (count as isize - d.abs()) as f32 * scale).collect();
        let centre = if site == AxisSite::First { 0 } else { reach };
        Self { factor, start: centre - reach, weights }
    }

    /// Returns the first weight's distance from the group's first luma sample, and the weights.
    pub(crate) fn window(&self) -> (isize, &[f32]) {
        (self.start, &self.weights)
    }

    /// Returns the luma indices and weights of chroma sample `at`, indices clamped to `0..len`.
    pub(crate) fn taps(&self, at: usize, len: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        let first = at as isize * self.factor as isize + self.start;
        let last = len as isize - 1;
        self.weights.iter().enumerate().map(move |(k, &weight)| {
            let index = (first + k as isize).clamp(0, last);
            (index as usize, weight)
        })
    }

    /// Adds `scale` times the narrowed row to `out`.
    #[inline(always)]
    pub(crate) fn accumulate_row(&self, row: &[f32], scale: f32, out: &mut [f32]) {
        match (self.factor, self.weights.len()) {
            (1, _) => {
                for (out, value) in out.iter_mut().zip(row) {
                    *out += value * scale;
                }
            }
            (2, 2) => self.accumulate_pairs(row, scale, out),
            _ => self.accumulate_span(row, scale, out, 0),
        }
    }

    #[inline(always)]
    fn accumulate_span(&self, row: &[f32], scale: f32, out: &mut [f32], start: usize) {
        let reach = self.weights.len() as isize;
        for (at, out) in out.iter_mut().enumerate() {
            let first = (start + at) as isize * self.factor as isize + self.start;
            let inside = first >= 0 && first + reach <= row.len() as isize;
            let sum: f32 = if inside {
                let window = &row[first as usize..][..self.weights.len()];
                window.iter().zip(&self.weights).map(|(value, weight)| value * weight).sum()
            } else {
                self.taps(start + at, row.len()).map(|(index, weight)| row[index] * weight).sum()
            };
            *out += sum * scale;
        }
    }

    #[inline(always)]
    fn accumulate_pairs(&self, row: &[f32], scale: f32, out: &mut [f32]) {
        let whole = row.len() / 2;
        let (body, tail) = out.split_at_mut(whole.min(out.len()));
        for (out, pair) in body.iter_mut().zip(row.chunks_exact(2)) {
            *out += (pair[0] + pair[1]) * (0.5 * scale);
        }
        self.accumulate_span(row, scale, tail, whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SITES: [AxisSite; 3] = [AxisSite::First, AxisSite::Middle, AxisSite::Last];

    #[test]
    fn a_ramp_keeps_its_place() {
        // A chroma ramp sampled at its sites must come back as the same ramp on the luma grid, away from the ends.
        for site in SITES {
            for factor in [1u32, 2, 4] {
                let offset = site.offset(factor);
                let chroma: Vec<f32> = (0..20).map(|i| i as f32 * factor as f32 + offset).collect();
                let mut out = vec![f32::NAN; 20 * factor as usize];
                upsample_row(&chroma, &mut out, factor, site);
                let ends = factor as usize;
                for (x, value) in out.iter().enumerate().take(19 * ends).skip(ends) {
                    assert!((value - x as f32).abs() < 1e-4, "{site:?} x{factor}: at {x} came {value}");
                }
                let filter = DownsampleFilter::new(factor, site);
                let luma: Vec<f32> = (0..20 * factor).map(|x| x as f32).collect();
                let mut back = vec![0.0; 20];
                filter.accumulate_row(&luma, 1.0, &mut back);
                for i in 1..19 {
                    assert!((back[i] - chroma[i]).abs() < 1e-4, "{site:?} x{factor}: sample {i} is {}", back[i]);
                }
            }
        }
    }

    #[test]
    fn mpeg_site_filters_are_the_usual_ones() {
        assert_eq!(DownsampleFilter::new(2, AxisSite::Middle).weights, [0.5, 0.5]);
        assert_eq!(DownsampleFilter::new(2, AxisSite::First).weights, [0.25, 0.5, 0.25]);
    }

    proptest! {
        #[test]
        fn fast_rows_equal_the_general_rule(
            width in 1usize..70,
            site in prop::sample::select(SITES.to_vec()),
            seed in prop::collection::vec(-200.0f32..200.0, 70),
        ) {
            let chroma = &seed[..width.div_ceil(2)];
            let (mut fast, mut general) = (vec![f32::NAN; width], vec![f32::NAN; width]);
            upsample_row(chroma, &mut fast, 2, site);
            upsample_span(chroma, &mut general, 0, 2, site);
            prop_assert_eq!(fast, general);

            let filter = DownsampleFilter::new(2, site);
            let luma = &seed[..width];
            let mut fast = vec![0.0; width.div_ceil(2)];
            filter.accumulate_row(luma, 1.0, &mut fast);
            for (at, value) in fast.iter().enumerate() {
                let expected: f32 = filter.taps(at, width).map(|(index, weight)| luma[index] * weight).sum();
                prop_assert!((value - expected).abs() < 1e-3);
            }
        }
    }
}
