//! Finished segments form a chain; what is missing between its links is what remains to be done.
//!
//! How many segments a stream has is unknown until its end was reached, and a segment may be empty
//! and have no object. So each finished segment names its neighbours that are not empty, and
//! [`todo`] walks from link to link. It is pure: objects are read elsewhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digest::SourceHash;
use crate::item::SegmentIndex;

/// What a finished segment says about itself; sealed with its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentHeader {
    /// Which segment of the plan this is.
    pub segment: SegmentIndex,
    /// How many items it holds; at least one.
    pub items: u32,
    /// The nearest segment before this one that is not empty; `None` at the start of the stream.
    pub previous: Option<SegmentIndex>,
    /// The nearest segment after this one that is not empty; `None` at the end of the stream.
    pub next: Option<SegmentIndex>,
    /// Time stamp of the first item, in ticks of the source's time base.
    pub first_pts: i64,
    /// Time stamp of the last item.
    pub last_pts: i64,
    /// Hash of the source of the last item: a resumed decoder must reproduce it.
    pub last_hash: SourceHash,
    /// Who wrote it; says nothing about its content.
    pub writer: String,
}

impl SegmentHeader {
    /// What is wrong with the header taken alone, if anything.
    pub fn fault(&self) -> Option<String> {
        let Self { segment, items, previous, next, .. } = self;
        match (previous, next) {
            _ if *items == 0 => Some(format!("segment {segment} without items has no object")),
            (Some(previous), _) if previous >= segment => {
                Some(format!("segment {segment} names {previous} as the one before it"))
            }
            (_, Some(next)) if next <= segment => Some(format!("segment {segment} names {next} as the one after it")),
            _ => None,
        }
    }

    /// Whether both describe the same stretch of the same stream, whoever wrote them.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let writer = String::new();
        Self { writer: writer.clone(), ..self.clone() } == Self { writer, ..other.clone() }
    }

    /// Where a decoder resumes to produce what comes after this segment.
    pub fn anchor(&self) -> Anchor {
        Anchor { segment: self.segment, pts: self.last_pts, hash: self.last_hash }
    }
}

/// The last source item before a run: it must be met again before new items count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The finished segment it ends.
    pub segment: SegmentIndex,
    /// Its time stamp.
    pub pts: i64,
    /// Its hash.
    pub hash: SourceHash,
}

/// Where a run of missing segments begins in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// At the first item of the stream.
    Start,
    /// Right after this item.
    After(Anchor),
}

/// A stretch of the stream with nothing finished in it. Which segments lie inside is known only once
/// it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Where it begins.
    pub resume: Resume,
    /// Its first segment that is not empty; unknown only at the start of the stream.
    pub first: Option<SegmentIndex>,
    /// Its last segment that is not empty; unknown where the run goes to the end of the stream.
    pub last: Option<SegmentIndex>,
    /// The finished segment at which the run stops: the last segment of the run names it as `next`.
    /// `None` means the end of the stream.
    pub stop_at: Option<SegmentIndex>,
    /// Index in the whole stream of the run's first item, where everything before it is finished.
    pub first_item: Option<u64>,
}

/// What remains, and how much is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Todo {
    /// Missing stretches in stream order; empty when the whole stream is finished.
    pub runs: Vec<Run>,
    /// Finished segments.
    pub segments_finished: u32,
    /// Items in finished segments.
    pub items_finished: u64,
    /// The watermark: items from the start of the stream up to the first gap.
    pub items_contiguous: u64,
}

impl Todo {
    /// Whether every item of the stream is in a finished segment.
    pub fn is_complete(&self) -> bool {
        self.runs.is_empty()
    }
}

/// Two finished segments of one plan that cannot both be right: the producer is not deterministic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("finished segments contradict each other: {0}; start the job afresh")]
pub struct Contradiction(pub String);

/// Walks the chain of finished segments and lists what is missing (L12: todo = plan - done).
///
/// # Errors
/// Neighbours that disagree about what lies between them.
pub fn todo(finished: &BTreeMap<SegmentIndex, SegmentHeader>) -> Result<Todo, Contradiction> {
    let mut todo = Todo { runs: Vec::new(), segments_finished: 0, items_finished: 0, items_contiguous: 0 };
    let mut before: Option<&SegmentHeader> = None;
    for header in finished.values() {
        if let Some(gap) = gap_between(before, header)? {
            todo.add(gap);
        }
        todo.segments_finished += 1;
        todo.items_finished += u64::from(header.items);
        if todo.runs.is_empty() {
            todo.items_contiguous = todo.items_finished;
        }
        before = Some(header);
    }
    if let Some(rest) = rest_after(before) {
        todo.add(rest);
    }
    Ok(todo)
}

impl Todo {
    fn add(&mut self, mut run: Run) {
        run.first_item = self.runs.is_empty().then_some(self.items_contiguous);
        self.runs.push(run);
    }
}

fn gap_between(before: Option<&SegmentHeader>, header: &SegmentHeader) -> Result<Option<Run>, Contradiction> {
    let contradiction = |what: String| Err(Contradiction(what));
    if let Some(fault) = header.fault() {
        return contradiction(fault);
    }
    let segment = header.segment;
    let gap = |resume, first, last| {
        Ok(Some(Run { resume, first, last: Some(last), stop_at: Some(segment), first_item: None }))
    };
    match (before.map(|before| (before, before.next)), header.previous) {
        (None, None) => Ok(None),
        (None, Some(last)) => gap(Resume::Start, None, last),
        (Some((before, Some(next))), Some(previous)) if next == segment && previous == before.segment => Ok(None),
        (Some((before, Some(next))), Some(previous)) if next <= previous => {
            gap(Resume::After(before.anchor()), Some(next), previous)
        }
        (Some((before, next)), previous) => contradiction(format!(
            "{} names {} as the next, {segment} names {} as the one before",
            before.segment,
            name(next),
            name(previous)
        )),
    }
}

fn rest_after(last: Option<&SegmentHeader>) -> Option<Run> {
    let (resume, first) = match last {
        None => (Resume::Start, None),
        Some(header) => (Resume::After(header.anchor()), Some(header.next?)),
    };
    Some(Run { resume, first, last: None, stop_at: None, first_item: None })
}

fn name(segment: Option<SegmentIndex>) -> String {
    segment.map_or_else(|| "none".to_owned(), |segment| segment.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The headers of a stream whose segments hold these numbers of items; zeros are empty segments.
    pub(in super::super) fn stream(items: &[u32]) -> Vec<SegmentHeader> {
        let full: Vec<u32> = (0..items.len() as u32).filter(|k| items[*k as usize] > 0).collect();
        let header = |(place, k): (usize, &u32)| SegmentHeader {
            segment: SegmentIndex(*k),
            items: items[*k as usize],
            previous: place.checked_sub(1).map(|before| SegmentIndex(full[before])),
            next: full.get(place + 1).map(|k| SegmentIndex(*k)),
            first_pts: i64::from(*k) * 1000,
            last_pts: i64::from(*k) * 1000 + i64::from(items[*k as usize]) - 1,
            last_hash: SourceHash(u128::from(*k)),
            writer: "w".to_owned(),
        };
        full.iter().enumerate().map(header).collect()
    }

    fn of(headers: &[SegmentHeader]) -> BTreeMap<SegmentIndex, SegmentHeader> {
        headers.iter().map(|header| (header.segment, header.clone())).collect()
    }

    #[test]
    fn nothing_finished_is_one_run_from_start_to_end() {
        let todo = todo(&BTreeMap::new()).unwrap();
        assert_eq!(
            todo.runs,
            [Run { resume: Resume::Start, first: None, last: None, stop_at: None, first_item: Some(0) }]
        );
    }

    #[test]
    fn everything_finished_leaves_nothing() {
        let all = todo(&of(&stream(&[0, 3, 0, 0, 2, 0]))).unwrap();
        assert!(all.is_complete());
        assert_eq!((all.items_finished, all.items_contiguous, all.segments_finished), (5, 5, 2));
    }

    #[test]
    fn a_hole_is_a_run_with_its_anchor_and_its_end() {
        let mut headers = stream(&[2, 2, 0, 2, 2, 2]);
        headers.remove(1);
        headers.remove(3);
        let todo = todo(&of(&headers)).unwrap();
        assert_eq!(todo.runs.len(), 2);
        let hole = todo.runs[0];
        assert_eq!(hole.resume, Resume::After(headers[0].anchor()));
        assert_eq!(
            (hole.first, hole.last, hole.stop_at),
            (Some(SegmentIndex(1)), Some(SegmentIndex(1)), Some(SegmentIndex(3)))
        );
        assert_eq!(hole.first_item, Some(2));
        let rest = todo.runs[1];
        assert_eq!((rest.first, rest.last, rest.stop_at, rest.first_item), (Some(SegmentIndex(5)), None, None, None));
        assert_eq!(todo.items_contiguous, 2);
    }

    #[test]
    fn neighbours_that_disagree_are_a_contradiction() {
        let good = stream(&[1, 1, 1, 1]);
        let check = |alter: &dyn Fn(&mut Vec<SegmentHeader>)| {
            let mut headers = good.clone();
            alter(&mut headers);
            assert!(todo(&of(&headers)).is_err(), "{headers:?}");
        };
        check(&|headers| headers[1].next = None);
        check(&|headers| headers[2].previous = None);
        check(&|headers| headers[1].next = Some(SegmentIndex(3)));
        check(&|headers| headers[2].previous = Some(SegmentIndex(0)));
        check(&|headers| headers[0].items = 0);
        check(&|headers| {
            headers.remove(1);
            headers[0].next = Some(SegmentIndex(2));
        });
    }

    proptest! {
        /// L12: the finished segments and the runs together are the whole stream, once.
        #[test]
        fn runs_and_finished_segments_partition_the_stream(
            items in proptest::collection::vec(0..4_u32, 1..24),
            keep in proptest::collection::vec(any::<bool>(), 24),
        ) {
            let all = stream(&items);
            prop_assume!(!all.is_empty());
            let kept: Vec<_> = all.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(h, _)| h.clone()).collect();
            let todo = todo(&of(&kept)).unwrap();
            let mut covered: Vec<SegmentIndex> = kept.iter().map(|h| h.segment).collect();
            for run in &todo.runs {
                // What a producer would make of this run, knowing only where to start and to stop.
                let start = match run.resume {
                    Resume::Start => 0,
                    Resume::After(anchor) => all.iter().position(|h| h.anchor() == anchor).unwrap() + 1,
                };
                let made: Vec<_> = all[start..].iter().take_while(|h| Some(h.segment) != run.stop_at).collect();
                prop_assert!(!made.is_empty());
                if let Some(first) = run.first {
                    prop_assert_eq!(made[0].segment, first);
                }
                if let Some(last) = run.last {
                    prop_assert_eq!(made.last().unwrap().segment, last);
                }
                if let Some(index) = run.first_item {
                    prop_assert_eq!(index, all[..start].iter().map(|h| u64::from(h.items)).sum::<u64>());
                }
                covered.extend(made.iter().map(|h| h.segment));
            }
            covered.sort();
            prop_assert_eq!(covered, all.iter().map(|h| h.segment).collect::<Vec<_>>());
            prop_assert_eq!(todo.is_complete(), kept.len() == all.len());
        }
    }
}
