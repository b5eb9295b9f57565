//! What differs between two frames of one scene: it moved, the light flickered, and coder or film left other noise.

use super::random::Random;

/// Sizes of the noise: blocks of 1, 2, 4 and 8 pixels. Coders and film leave noise of every size.
const OCTAVES: u32 = 4;
/// Largest shift, pixels.
pub(super) const SHIFT_MAX: u32 = 7;
/// Flicker of the light, in deviations of the noise.
const FLICKER: f32 = 3.0;

/// How a view is rendered differently from how it was drawn; by default it is not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Disturbance {
    /// Move down and to the right, in whole pixels of the view: between them, interpolation would soften the picture.
    pub shift: (i32, i32),
    /// Deviation of the noise of each size, colours 0..1.
    pub noise: f32,
    /// Factor on the colours.
    pub gain: f32,
    /// Addition to the colours.
    pub lift: f32,
}

impl Default for Disturbance {
    fn default() -> Self {
        Self { shift: (0, 0), noise: 0.0, gain: 1.0, lift: 0.0 }
    }
}

impl Disturbance {
    /// Draws one with a shift of up to seven pixels each way, noise of a deviation up to `noise_max`, and flicker in proportion.
    pub fn draw(random: &mut Random, noise_max: f32) -> Self {
        let shift = |random: &mut Random| random.below(2 * SHIFT_MAX as usize + 1) as i32 - SHIFT_MAX as i32;
        let flicker = FLICKER * noise_max;
        Self {
            shift: (shift(random), shift(random)),
            noise: random.between(0.0, noise_max),
            gain: 1.0 + random.between(-flicker, flicker),
            lift: random.between(-flicker, flicker),
        }
    }

    /// The noise of a view: (3, size, size), the sum of independent noise in blocks of every size, laid at random.
    pub(super) fn grain(&self, size: usize, random: &mut Random) -> Vec<f32> {
        let mut planes = vec![0.0; 3 * size * size];
        if self.noise == 0.0 {
            return planes;
        }
        for octave in 0..OCTAVES {
            let side = 1_usize << octave;
            let (above, left) = (random.below(side), random.below(side));
            let columns = size / side + 2;
            for plane in planes.chunks_exact_mut(size * size) {
                let blocks: Vec<f32> = (0..columns * columns).map(|_| self.noise * random.normal()).collect();
                for (y, row) in plane.chunks_exact_mut(size).enumerate() {
                    let blocks = &blocks[(y + above) / side * columns..][..columns];
                    row.iter_mut().enumerate().for_each(|(x, value)| *value += blocks[(x + left) / side]);
                }
            }
        }
        planes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deviation(values: &[f32]) -> f32 {
        (values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32).sqrt()
    }

    #[test]
    fn noise_has_its_deviation_at_every_size() {
        let disturbance = Disturbance { noise: 0.01, ..Disturbance::default() };
        let size = 128;
        let grain = disturbance.grain(size, &mut Random::new(1, 1));
        assert!((deviation(&grain) - 0.02).abs() < 0.002, "four sizes of 0.01 make 0.02: {}", deviation(&grain));
        // Neighbours differ by less than strangers would, since most sizes are shared.
        let steps: Vec<f32> = grain.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(deviation(&steps) < 0.9 * 0.02 * 2.0_f32.sqrt(), "{}", deviation(&steps));
    }

    #[test]
    fn without_noise_there_is_no_grain_and_no_number_is_drawn() {
        let (mut used, mut fresh) = (Random::new(1, 1), Random::new(1, 1));
        assert!(Disturbance::default().grain(8, &mut used).iter().all(|value| *value == 0.0));
        assert_eq!(used.unit(), fresh.unit());
    }

    #[test]
    fn draws_stay_in_their_ranges() {
        for stream in 0..200 {
            let drawn = Disturbance::draw(&mut Random::new(7, stream), 0.01);
            assert!(drawn.shift.0.abs() <= 7 && drawn.shift.1.abs() <= 7);
            assert!((0.0..=0.01).contains(&drawn.noise));
            assert!((drawn.gain - 1.0).abs() <= 0.03 && drawn.lift.abs() <= 0.03);
        }
    }
}
