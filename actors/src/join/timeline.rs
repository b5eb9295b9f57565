//! Times in the joined file: rescaling, decode times from presentation times, and audio without rounding jitter.

use std::collections::VecDeque;

use crate::source_info::Rational;

/// Rescales ticks from one unit to another, to the nearest tick, halves away from zero.
///
/// Equal to FFmpeg's own rounding. Saturates; returns 0 where a unit is not positive.
#[must_use]
pub fn rescale(ticks: i64, from: Rational, to: Rational) -> i64 {
    let numerator = i128::from(ticks) * i128::from(from.num) * i128::from(to.den);
    let denominator = i128::from(from.den) * i128::from(to.num);
    if denominator <= 0 {
        return 0;
    }
    let half = denominator / 2;
    let rounded = if numerator >= 0 { (numerator + half) / denominator } else { -((-numerator + half) / denominator) };
    rounded.clamp(i128::from(i64::MIN + 1), i128::from(i64::MAX)) as i64
}

/// Compares two times of different units.
#[must_use]
pub fn is_later(a: i64, unit_a: Rational, b: i64, unit_b: Rational) -> bool {
    let left = i128::from(a) * i128::from(unit_a.num) * i128::from(unit_b.den);
    let right = i128::from(b) * i128::from(unit_b.num) * i128::from(unit_a.den);
    left > right
}

/// Makes decode times: the n-th packet in decode order is decoded at the (n - delay)-th presentation time of the whole
/// film, so that decode times grow, never pass presentation times, and do not depend on where segments are cut.
#[derive(Debug)]
pub struct DecodeTimes {
    delay: usize,
    lead_ticks: i64,
    tail: VecDeque<i64>,
}

impl DecodeTimes {
    /// Begins a film whose frames are reordered by at most `delay`; times before the first frame lie `lead_ticks` apart.
    #[must_use]
    pub fn new(delay: u32, lead_ticks: i64) -> Self {
        Self { delay: delay as usize, lead_ticks: lead_ticks.max(1), tail: VecDeque::new() }
    }

    /// Returns one decode time for each packet of the next segment, given its presentation times in growing order.
    pub fn next_segment(&mut self, presentation_times: &[i64]) -> Vec<i64> {
        let Some(first) = presentation_times.first() else { return Vec::new() };
        if self.tail.is_empty() {
            self.tail.extend((1..=self.delay as i64).rev().map(|before| first - before * self.lead_ticks));
        }
        let mut times = Vec::with_capacity(presentation_times.len());
        for time in presentation_times {
            self.tail.push_back(*time);
            times.extend(self.tail.pop_front());
        }
        times
    }
}

/// Puts audio packets of a coarse source clock back on sample positions.
///
/// A source that counts milliseconds rounds every packet's time; written to a container that counts samples, the
/// rounding would turn into gaps and overlaps. As long as the source's time is within one of its ticks of where the
/// samples so far end, the samples win; else the source does.
#[derive(Debug)]
pub struct SampleClock {
    unit: Rational,
    tolerance: i64,
    next: Option<i64>,
}

impl SampleClock {
    /// Makes a clock from the source's unit to a unit of one sample; `padding` samples come before time zero.
    #[must_use]
    pub fn new(source_unit: Rational, sample_unit: Rational, padding: i64) -> Self {
        let tick = rescale(1, source_unit, sample_unit);
        let tolerance = if tick <= 1 { 0 } else { tick };
        Self { unit: sample_unit, tolerance, next: (padding > 0).then_some(-padding) }
    }

    /// Returns the position of the next packet, timed `ticks` by the source, holding `samples` where that is known.
    pub fn position(&mut self, ticks: i64, source_unit: Rational, samples: Option<i64>) -> i64 {
        let exact = rescale(ticks, source_unit, self.unit);
        let position = match self.next {
            Some(next) if (exact - next).abs() <= self.tolerance => next,
            _ => exact,
        };
        self.next = samples.map(|samples| position + samples);
        position
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rescaling_rounds_to_nearest() {
        let check = |ticks, from: (i32, i32), to: (i32, i32), expected| {
            let (from, to) = (Rational::new(from.0, from.1), Rational::new(to.0, to.1));
            assert_eq!(rescale(ticks, from, to), expected, "{ticks} {from} {to}");
        };
        check(1, (1001, 30_000), (1, 1000), 33);
        check(-1105, (1, 44_100), (1, 1000), -25);
        check(-312, (1, 48_000), (1, 1000), -7);
        check(1, (1001, 24_000), (1, 24_000), 1001);
        check(i64::MAX, (1, 1), (1, 1000), i64::MAX);
        check(5, (1, 0), (1, 1000), 0);
    }

    #[test]
    fn no_reordering_decodes_at_presentation_times() {
        let mut clock = DecodeTimes::new(0, 10);
        assert_eq!(clock.next_segment(&[3, 9, 30]), [3, 9, 30]);
        assert_eq!(clock.next_segment(&[31]), [31]);
    }

    #[test]
    fn decode_times_run_across_segments() {
        let mut clock = DecodeTimes::new(2, 512);
        assert_eq!(clock.next_segment(&[0]), [-1024]);
        assert_eq!(clock.next_segment(&[700, 900, 5000]), [-512, 0, 700]);
        assert_eq!(clock.next_segment(&[5001]), [900]);
    }

    proptest! {
        #[test]
        fn decode_times_do_not_depend_on_cuts(
            gaps in proptest::collection::vec(1..5000i64, 1..60),
            start in -10_000..10_000i64,
            delay in 0..5u32,
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let times: Vec<i64> = gaps.iter().scan(start, |at, gap| { let now = *at; *at += gap; Some(now) }).collect();
            let whole = DecodeTimes::new(delay, 7).next_segment(&times);
            let mut clock = DecodeTimes::new(delay, 7);
            let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(times.len())).collect();
            places.extend([0, times.len()]);
            places.sort_unstable();
            let parts: Vec<i64> = places.windows(2).flat_map(|p| clock.next_segment(&times[p[0]..p[1]])).collect();
            prop_assert_eq!(&parts, &whole);
            prop_assert!(whole.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(whole.iter().zip(&times).all(|(dts, pts)| dts <= pts));
        }
    }

    #[test]
    fn millisecond_audio_lands_on_samples() {
        let (ms, sample) = (Rational::new(1, 1000), Rational::new(1, 48_000));
        let mut clock = SampleClock::new(ms, sample, 0);
        let written: Vec<_> = (0..50)
            .map(|n| {
                let rounded = (n * 1024 * 1000 + 24_000) / 48_000;
                clock.position(rounded, ms, Some(1024))
            })
            .collect();
        assert_eq!(written, (0..50).map(|n| n * 1024).collect::<Vec<_>>());
    }

    #[test]
    fn gaps_of_the_source_stay() {
        let (ms, sample) = (Rational::new(1, 1000), Rational::new(1, 48_000));
        let mut clock = SampleClock::new(ms, sample, 0);
        assert_eq!(clock.position(0, ms, Some(1024)), 0);
        assert_eq!(clock.position(100, ms, Some(1024)), 4800);
        assert_eq!(clock.position(121, ms, None), 5824);
        assert_eq!(clock.position(143, ms, None), 6864);
    }

    #[test]
    fn padding_is_exact_where_the_source_rounds_it() {
        let (ms, sample) = (Rational::new(1, 1000), Rational::new(1, 48_000));
        assert_eq!(SampleClock::new(ms, sample, 312).position(-7, ms, Some(960)), -312);
        assert_eq!(SampleClock::new(ms, sample, 312).position(0, ms, Some(960)), 0);
        let fine = Rational::new(1, 48_000);
        assert_eq!(SampleClock::new(fine, sample, 312).position(-300, fine, Some(960)), -300);
    }
}
