//! A virtual stream: what a decoder would give, and what the output must be.

use std::collections::BTreeMap;

use crate::item::{ItemIndex, SegmentIndex};
use crate::ledger::SourceHash;
use crate::random::Random;

/// One item of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SourceItem {
    pub(super) segment: SegmentIndex,
    pub(super) index: ItemIndex,
    pub(super) pts: i64,
    pub(super) source: SourceHash,
}

/// A source with empty segments at its beginning, inside and at its end.
pub(super) struct Stream {
    pub(super) items: Vec<SourceItem>,
}

impl Stream {
    /// 1 to 6 segments of up to 5 items.
    pub(super) fn of(random: &mut Random) -> Stream {
        let mut items = Vec::new();
        while items.is_empty() {
            for segment in 0..1 + random.below(6) as u32 {
                let count = if random.happens(250) { 0 } else { 1 + random.below(5) as u32 };
                items.extend((0..count).map(|index| SourceItem {
                    segment: SegmentIndex(segment),
                    index: ItemIndex(index),
                    pts: i64::from(segment) * 1000 + i64::from(index) * 40,
                    source: SourceHash(u128::from(random.bits())),
                }));
            }
        }
        Stream { items }
    }

    /// Where the item with this time stamp and hash stands.
    pub(super) fn find(&self, pts: i64, source: SourceHash) -> Option<usize> {
        self.items.iter().position(|item| (item.pts, item.source) == (pts, source))
    }

    /// How many items each segment that is not empty has.
    pub(super) fn segments(&self) -> BTreeMap<SegmentIndex, u32> {
        let mut segments = BTreeMap::new();
        for item in &self.items {
            *segments.entry(item.segment).or_default() += 1;
        }
        segments
    }

    /// What an undisturbed job gives.
    pub(super) fn output(&self) -> Vec<u8> {
        self.items.iter().flat_map(|item| score(item.source)).collect()
    }
}

/// What scoring makes of an item.
pub(super) fn score(source: SourceHash) -> Vec<u8> {
    let mut random = Random::new(source.0 as u64);
    (0..3 + random.below(6)).map(|_| random.bits() as u8).collect()
}
