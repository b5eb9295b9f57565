//! Weights of a resampling along one axis, with the filters of [`crate::resize`].

/// For every output the first input and as many weights as all outputs have.
#[derive(Clone, Debug, PartialEq)]
pub struct Resampling {
    /// First input of every output.
    pub first: Vec<i32>,
    /// `taps` weights of every output.
    pub weights: Vec<f32>,
    /// Weights of an output.
    pub taps: usize,
}

/// Which filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Lanczos of radius 3, for narrowing.
    Lanczos3,
    /// Catmull-Rom, for widening.
    CatmullRom,
}

impl Filter {
    /// Returns the filter for a picture that goes from one size to another, (width, height) each.
    pub fn choose(from: (usize, usize), to: (usize, usize)) -> Self {
        if to.0 < from.0 || to.1 < from.1 { Self::Lanczos3 } else { Self::CatmullRom }
    }

    fn radius(self) -> f64 {
        match self {
            Self::Lanczos3 => 3.0,
            Self::CatmullRom => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Lanczos3 if x == 0.0 => 1.0,
            Self::Lanczos3 if x < 3.0 => sinc(x) * sinc(x / 3.0),
            Self::CatmullRom if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::CatmullRom if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            _ => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

impl Resampling {
    /// Works out the weights that make `to` samples of `from`; both are at least 1.
    pub fn new(filter: Filter, from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let reach = filter.radius() * stretch;
        let taps = ((2.0 * reach).ceil() as usize + 1).min(from);
        let (mut first, mut weights) = (Vec::with_capacity(to), Vec::with_capacity(to * taps));
        for out in 0..to {
            let centre = (out as f64 + 0.5) * scale;
            let start = ((centre - reach).floor().max(0.0) as usize).min(from - taps);
            let window: Vec<f64> =
                (start..start + taps).map(|at| filter.at((at as f64 + 0.5 - centre) / stretch)).collect();
            let sum: f64 = window.iter().sum();
            first.push(start as i32);
            weights.extend(window.iter().map(|weight| (weight / sum) as f32));
        }
        Self { first, weights, taps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one_and_keep_a_ramp_in_place() {
        for (from, to) in [(40usize, 20usize), (20, 40), (33, 50), (7, 7), (1, 9), (3, 2)] {
            let resampling = Resampling::new(Filter::choose((from, 1), (to, 1)), from, to);
            for out in 0..to {
                let weights = &resampling.weights[out * resampling.taps..][..resampling.taps];
                assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                let first = resampling.first[out] as usize;
                assert!(first + resampling.taps <= from);
                let found: f32 = weights.iter().enumerate().map(|(k, w)| w * (first + k) as f32).sum();
                let expected = (out as f32 + 0.5) * from as f32 / to as f32 - 0.5;
                let inside = expected > 3.0 * from as f32 / to as f32 + 3.0 && expected < from as f32 - 7.0;
                assert!(!inside || (found - expected).abs() < 0.05, "{from} to {to}: {out} is {found}, {expected}");
            }
        }
    }
}
