//! Which decoded frames count, when each is shown, and what happens to damaged ones.
//!
//! Pure bookkeeping over a payload, so that its rules can be tested without a codec. Frames come in presentation order, as
//! a decoder gives them; losses (packets that gave no frame) come whenever the decoder reports them and are placed by
//! their timestamps. Nothing before the first good frame is delivered.

use std::collections::BTreeMap;

/// What a decoder gave for one frame.
#[derive(Debug, Clone)]
pub(crate) struct Arrival<F> {
    pub(crate) payload: F,
    /// Timestamp, where any is known.
    pub(crate) pts: Option<i64>,
    /// Duration, where the file says.
    pub(crate) duration: Option<i64>,
    /// What is wrong with it.
    pub(crate) fault: Option<String>,
}

/// A place in the output, in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Placed<F> {
    /// A frame to deliver.
    Frame { payload: F, pts: i64, duration: i64, concealed: Option<String> },
    /// A frame that is damaged while concealment was not asked for.
    Damaged { pts: i64, fault: String },
}

/// Places frames in time.
#[derive(Debug)]
pub(crate) struct Timeline<F> {
    conceal: bool,
    /// Ticks of one frame at the nominal rate, at least 1.
    nominal: i64,
    last: Option<(i64, i64)>,
    good: Option<F>,
    lost: BTreeMap<i64, String>,
    lost_nowhere: Vec<String>,
    /// Frames and losses before the first good frame, with the first reason.
    pub(crate) dropped_before_first: (u64, Option<String>),
    /// Timestamps that had to be moved to keep them growing.
    pub(crate) moved: u64,
}

impl<F: Clone> Timeline<F> {
    pub(crate) fn new(conceal: bool, nominal: i64) -> Self {
        Self {
            conceal,
            nominal: nominal.clamp(1, 1 << 40),
            last: None,
            good: None,
            lost: BTreeMap::new(),
            lost_nowhere: Vec::new(),
            dropped_before_first: (0, None),
            moved: 0,
        }
    }

    /// Takes note of a packet that gave an error instead of a frame.
    pub(crate) fn lose(&mut self, pts: Option<i64>, fault: String) {
        match pts.filter(is_sane) {
            Some(pts) => {
                self.lost.entry(pts).or_insert(fault);
            }
            None => self.lost_nowhere.push(fault),
        }
    }

    /// Places the next frame, after the losses that lie before it.
    pub(crate) fn place(&mut self, arrival: Arrival<F>) -> Vec<Placed<F>> {
        let Arrival { payload, pts, duration, fault } = arrival;
        let (pts, duration) = (pts.filter(is_sane), duration.filter(is_sane));
        let mut placed = Vec::new();
        let estimate = pts.unwrap_or_else(|| self.last.map_or(0, |(pts, duration)| pts.saturating_add(duration)));
        if self.good.is_none() {
            let later = self.lost.split_off(&estimate);
            let dropped = std::mem::replace(&mut self.lost, later);
            let nowhere = std::mem::take(&mut self.lost_nowhere);
            dropped.into_values().chain(nowhere).for_each(|fault| self.drop_before_first(fault));
            if let Some(fault) = fault {
                self.drop_before_first(fault);
                return placed;
            }
        } else {
            self.place_losses_before(Some(estimate), &mut placed);
        }
        let pts = self.growing(estimate);
        let duration = duration.unwrap_or(self.nominal);
        match fault {
            None => {
                self.good = Some(payload.clone());
                placed.push(Placed::Frame { payload, pts, duration, concealed: None });
            }
            Some(fault) => placed.push(self.faulty(pts, duration, fault)),
        }
        self.last = Some((pts, duration));
        // A loss at this very timestamp gave a frame after all (its other field, say).
        self.lost.remove(&estimate);
        placed
    }

    /// Places what is left at the end.
    pub(crate) fn finish(&mut self) -> Vec<Placed<F>> {
        let mut placed = Vec::new();
        if self.good.is_some() {
            self.place_losses_before(None, &mut placed);
        }
        placed
    }

    /// Says that the stream broke off after the last frame: damage, unless damage is concealed.
    pub(crate) fn break_off(&mut self, fault: String) -> Option<Placed<F>> {
        let pts = self.last.map_or(0, |(pts, duration)| pts.saturating_add(duration));
        (!self.conceal).then_some(Placed::Damaged { pts, fault })
    }

    /// Whether any frame was good so far.
    pub(crate) fn has_begun(&self) -> bool {
        self.good.is_some()
    }

    fn drop_before_first(&mut self, fault: String) {
        self.dropped_before_first.0 += 1;
        self.dropped_before_first.1.get_or_insert(fault);
    }

    /// Places losses between the last frame and `next` where there is room for a frame.
    fn place_losses_before(&mut self, next: Option<i64>, placed: &mut Vec<Placed<F>>) {
        let before = match next {
            Some(next) => {
                let later = self.lost.split_off(&next);
                std::mem::replace(&mut self.lost, later)
            }
            None => std::mem::take(&mut self.lost),
        };
        let room = self.nominal * 3 / 4;
        for (pts, fault) in before {
            let after_last = self.last.is_none_or(|(last, _)| pts.saturating_sub(last) >= room.max(1));
            let before_next = next.is_none_or(|next| next.saturating_sub(pts) >= room.max(1));
            if after_last && before_next {
                placed.push(self.faulty(pts, self.nominal, fault));
                self.last = Some((pts, self.nominal));
            } else if !self.conceal {
                // No frame is missing, yet the decoder failed: that is damage all the same.
                placed.push(Placed::Damaged { pts, fault });
            }
        }
        for fault in std::mem::take(&mut self.lost_nowhere) {
            let pts = self.last.map_or(0, |(pts, duration)| pts.saturating_add(duration));
            let fits = next.is_none_or(|next| next.saturating_sub(pts) >= room.max(1));
            if fits {
                placed.push(self.faulty(pts, self.nominal, fault));
                self.last = Some((pts, self.nominal));
            } else if !self.conceal {
                placed.push(Placed::Damaged { pts, fault });
            }
        }
    }

    fn faulty(&self, pts: i64, duration: i64, fault: String) -> Placed<F> {
        match &self.good {
            Some(good) if self.conceal => {
                Placed::Frame { payload: good.clone(), pts, duration, concealed: Some(fault) }
            }
            _ => Placed::Damaged { pts, fault },
        }
    }

    /// Moves a timestamp behind the last one where it is not.
    fn growing(&mut self, pts: i64) -> i64 {
        match self.last {
            Some((last, _)) if pts <= last => {
                self.moved += 1;
                last.saturating_add(1)
            }
            _ => pts,
        }
    }
}

/// Tells timestamps from noise, so that sums of two never overflow.
fn is_sane(ticks: &i64) -> bool {
    ticks.unsigned_abs() < 1 << 61
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(payload: u32, pts: i64) -> Arrival<u32> {
        Arrival { payload, pts: Some(pts), duration: None, fault: None }
    }

    fn faulty(payload: u32, pts: i64) -> Arrival<u32> {
        Arrival { fault: Some("bad".to_owned()), ..arrival(payload, pts) }
    }

    /// (payload or none for damage, pts)
    fn seen(placed: Vec<Placed<u32>>) -> Vec<(Option<u32>, i64)> {
        placed
            .into_iter()
            .map(|p| match p {
                Placed::Frame { payload, pts, .. } => (Some(payload), pts),
                Placed::Damaged { pts, .. } => (None, pts),
            })
            .collect()
    }

    #[test]
    fn nothing_before_the_first_good_frame_is_delivered() {
        let mut timeline = Timeline::new(false, 10);
        timeline.lose(Some(0), "no frame".to_owned());
        assert_eq!(seen(timeline.place(faulty(1, 10))), []);
        assert_eq!(seen(timeline.place(arrival(2, 20))), [(Some(2), 20)]);
        assert_eq!(timeline.dropped_before_first, (2, Some("no frame".to_owned())));
    }

    #[test]
    fn damage_after_the_first_good_frame_is_an_error_or_a_repeat() {
        for conceal in [false, true] {
            let mut timeline = Timeline::new(conceal, 10);
            timeline.place(arrival(1, 0));
            let expected = if conceal { Some(1) } else { None };
            assert_eq!(seen(timeline.place(faulty(2, 10))), [(expected, 10)]);
            assert_eq!(seen(timeline.place(arrival(3, 20))), [(Some(3), 20)]);
        }
    }

    #[test]
    fn a_lost_frame_is_filled_in_at_its_place() {
        let mut timeline = Timeline::new(true, 10);
        timeline.place(arrival(1, 0));
        timeline.lose(Some(20), "no frame".to_owned());
        assert_eq!(seen(timeline.place(arrival(2, 10))), [(Some(2), 10)]);
        assert_eq!(seen(timeline.place(arrival(4, 30))), [(Some(2), 20), (Some(4), 30)]);
        timeline.lose(Some(40), "no frame".to_owned());
        assert_eq!(seen(timeline.finish()), [(Some(4), 40)]);
    }

    #[test]
    fn a_lost_field_adds_no_frame() {
        let mut timeline = Timeline::new(true, 10);
        timeline.place(arrival(1, 0));
        timeline.lose(Some(5), "no frame".to_owned());
        assert_eq!(seen(timeline.place(arrival(2, 10))), [(Some(2), 10)]);
    }

    #[test]
    fn timestamps_always_grow() {
        let mut timeline = Timeline::new(false, 10);
        let frames = [Some(0), None, Some(15), Some(15), Some(3)];
        let placed: Vec<i64> = frames
            .into_iter()
            .flat_map(|pts| seen(timeline.place(Arrival { payload: 0, pts, duration: None, fault: None })))
            .map(|(_, pts)| pts)
            .collect();
        assert_eq!(placed, [0, 10, 15, 16, 17]);
        assert_eq!(timeline.moved, 2);
    }
}
