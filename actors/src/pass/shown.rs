//! What a pass shows to onlookers.

use super::Pass;
use crate::control::{LinkReader, LinkReading};
use restyle_engine::item::SegmentIndex;
use std::sync::Arc;

impl Pass<'_> {
    /// Shows the frames of segments that are finished already, as far as their numbers are known.
    pub(super) fn show_finished(&self) {
        let mut next = Some((SegmentIndex(0), 0));
        for (segment, header) in &self.work.scan.finished {
            let follows = next.filter(|(expected, _)| expected == segment).map(|(_, first)| first);
            let first = follows.or_else(|| self.work.order.first_frames.get(segment).copied());
            if let Some(first) = first {
                self.control.board().finished(first, u64::from(header.items));
            }
            next = first.zip(header.next).map(|(first, next)| (next, first + u64::from(header.items)));
        }
    }

    pub(super) fn link_reader(&self) -> LinkReader {
        let (pool, credits) = (Arc::clone(&self.pool), self.credits.clone());
        Box::new(move || {
            let (pool, credits, capacity) = (pool.stats(), credits.stats(), credits.limit().items as u64);
            let outstanding = pool.outstanding as u64;
            let (entered, left) = (pool.committed, pool.committed.min(credits.returned));
            vec![
                LinkReading {
                    name: "decode → score",
                    fill: outstanding,
                    capacity,
                    entered: pool.pushed,
                    left: pool.committed,
                    stall_micros: credits.stall_micros,
                },
                LinkReading {
                    name: "score → encode",
                    fill: (credits.items as u64).saturating_sub(outstanding),
                    capacity,
                    entered,
                    left,
                    stall_micros: 0,
                },
            ]
        })
    }
}
