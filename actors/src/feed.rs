//! The decoder stage: walks what is left to do, decodes it in plan order and feeds the scorers.
//!
//! A credit is taken before a frame is decoded, so that slow scorers, encoders or storage stop the decoder and never fill memory. A segment is
//! opened only when an assembler takes it. Since credits are taken in plan order the oldest frame always has one (L2).
//! Frames that a pack already holds are decoded, to be sure that they are the same, but never reach a scorer. Segments that the pass is not
//! to make are decoded and thrown away. Whatever a segment's fate, an attempt at it is on record before its second frame is decoded.

use crate::board::FrameBoard;
use crate::decode::FrameDecoder;
use crate::error::{ActorError, Result};
use crate::frame::{Anchor, DecodedFrame};
use crate::packed;
use crate::task::{Arrival, FrameTask, OpenSegment, ScoredFrame, SegmentEnd};
use crossbeam_channel::{Sender, select};
use restyle_engine::cancel::CancelToken;
use restyle_engine::credit::{Credit, Credits};
use restyle_engine::fault;
use restyle_engine::item::{Item, ItemId, ItemIndex, SegmentIndex};
use restyle_engine::ledger::{
    Adopted, AttemptBegun, AttemptEnd, PassScope, Resume, Run, Scan, SegmentLedger, SourceHash,
};
use restyle_engine::link::{LinkSender, link};
use restyle_engine::progress::Progress;
use restyle_engine::steal::Pool;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Where the cuts lie: segment `k` holds the frames from `origin + k * ticks` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cuts {
    /// Length of a segment in ticks of the stream's time base; at least 1.
    pub ticks: i64,
    /// Timestamp of the first frame of the stream, once known.
    pub origin: Option<i64>,
}

impl Cuts {
    /// Returns the segment of a frame, never before that of the frame in front of it: timestamps may run backwards, segments may not.
    fn segment_of(&mut self, pts: i64, previous: SegmentIndex) -> SegmentIndex {
        let origin = *self.origin.get_or_insert(pts);
        let index = pts.saturating_sub(origin).div_euclid(self.ticks.max(1)).clamp(0, i64::from(u32::MAX - 1));
        // The clamp makes the conversion exact.
        SegmentIndex(index as u32).max(previous)
    }
}

/// Which of the missing segments a pass makes, and what is known about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassOrder {
    /// Which.
    pub scope: PassScope,
    /// Segments that killed a process which only decoded them: a pass that is not about one of them ends in front of it.
    pub impassable: BTreeSet<SegmentIndex>,
    /// Numbers of first frames that earlier attempts have learnt.
    pub first_frames: BTreeMap<SegmentIndex, u64>,
    /// Frames of the job that are finished when the pass begins, packs included.
    pub frames_finished: u64,
}

impl PassOrder {
    /// Everything that is missing.
    #[must_use]
    pub fn everything(frames_finished: u64) -> Self {
        let scope = PassScope::Together { held_back: BTreeSet::new() };
        Self { scope, impassable: BTreeSet::new(), first_frames: BTreeMap::new(), frames_finished }
    }

    /// The segment that is made alone, where one is.
    #[must_use]
    pub fn alone(&self) -> Option<SegmentIndex> {
        match self.scope {
            PassScope::Alone(segment) => Some(segment),
            PassScope::Together { .. } => None,
        }
    }

    /// Whether a run holds anything that the pass makes.
    fn wants(&self, run: &Run) -> bool {
        self.alone().is_none_or(|alone| {
            let behind_start = match run.resume {
                Resume::Start => true,
                Resume::After(anchor) => anchor.segment < alone,
            };
            behind_start && run.stop_at.is_none_or(|stop| alone < stop)
        })
    }

    /// Whether the pass has nothing more to do from this segment on.
    fn ends_before(&self, segment: SegmentIndex) -> bool {
        let is_target = self.alone() == Some(segment);
        self.alone().is_some_and(|alone| segment > alone) || (self.impassable.contains(&segment) && !is_target)
    }
}

/// What a feed needs besides its decoder.
#[derive(Clone)]
pub struct FeedParts {
    /// What to feed.
    pub order: Arc<PassOrder>,
    /// Where the cuts lie.
    pub cuts: Cuts,
    /// Back-pressure of the whole pass.
    pub credits: Credits,
    /// Where the scorers take their work.
    pub pool: Arc<Pool<FrameTask>>,
    /// Where the assemblers take theirs: a rendezvous that ends when one of them takes the segment.
    pub opener: Sender<OpenSegment>,
    /// Where the work store is read for packs.
    pub segments: SegmentLedger,
    /// What packs hold of unfinished segments.
    pub adopted: Arc<BTreeMap<SegmentIndex, Adopted>>,
    /// Bytes that one frame in flight holds, decoded and scored together.
    pub frame_bytes: u64,
    /// Where onlookers see what each frame has come to.
    pub board: Arc<FrameBoard>,
    /// Where onlookers see which frame it is at.
    pub at: Arc<AtomicU64>,
    /// Ends the feed between two frames.
    pub stop: CancelToken,
    /// Ends the feed at the end of the segment it is in.
    pub stop_at_cut: Arc<AtomicBool>,
}

/// The decoder stage of one pass.
pub struct Feed {
    decoder: FrameDecoder,
    parts: FeedParts,
    progress: Progress,
    /// Numbers of the frames that repeat a good neighbour, and why the first of them does.
    concealed: Vec<u64>,
    concealed_why: Option<String>,
}

/// The segment that the decoder is in.
struct Current {
    segment: SegmentIndex,
    frames: u32,
    fate: Fate,
}

/// What happens to the frames of a segment.
enum Fate {
    /// They are scored.
    Made(LinkSender<Arrival>),
    /// They are thrown away; the attempt on record is to be explained at the end.
    Passed(u32),
}

/// How feeding a run ended.
enum Fed {
    /// All of it was fed; the number of the frame after it.
    Whole(u64),
    /// What lies behind is not for this pass.
    Enough,
}

impl Feed {
    /// Builds the stage on the thread that runs it.
    #[must_use]
    pub fn new(decoder: FrameDecoder, parts: FeedParts, progress: Progress) -> Self {
        Self { decoder, parts, progress, concealed: Vec::new(), concealed_why: None }
    }

    /// Feeds every run of missing segments, in order, and returns the decoder's warnings; blocks on credits and on the
    /// assemblers.
    ///
    /// # Errors
    /// The decoder's errors with the frame's number; [`ActorError::Cancelled`] when told to stop before the end.
    pub fn run(mut self, runs: &[Run], scan: &Scan) -> Result<Vec<String>> {
        let mut number = 0;
        let order = Arc::clone(&self.parts.order);
        for run in runs.iter().filter(|run| order.wants(run)) {
            number = run.first_item.unwrap_or_else(|| number + finished_between(scan, run));
            match self.feed_run(run, number)? {
                Fed::Whole(next) => number = next,
                Fed::Enough => break,
            }
        }
        let mut warnings = self.decoder.take_warnings();
        warnings.extend(self.concealment());
        Ok(warnings)
    }

    /// Tells which frames were concealed, the first hundred by number.
    fn concealment(&self) -> Option<String> {
        const NAMED_MAX: usize = 100;
        let why = self.concealed_why.as_deref()?;
        let named: Vec<String> = self.concealed.iter().take(NAMED_MAX).map(u64::to_string).collect();
        let more = if self.concealed.len() > NAMED_MAX { " and more" } else { "" };
        Some(format!(
            "{} damaged frames are concealed by their neighbours: {}{more} ({why})",
            self.concealed.len(),
            named.join(", ")
        ))
    }

    /// Feeds one run; `number` is that of its first frame.
    fn feed_run(&mut self, run: &Run, number: u64) -> Result<Fed> {
        let mut current = None;
        let fed = self.walk(run, number, &mut current);
        // Cut short for a reason that is known: nothing to hold against a segment that was only passed.
        if let (Err(_), Some(Current { segment, fate: Fate::Passed(attempt), .. })) = (&fed, &current) {
            self.explain(*segment, *attempt);
        }
        fed
    }

    fn walk(&mut self, run: &Run, mut number: u64, current: &mut Option<Current>) -> Result<Fed> {
        let mut previous = self.position(run, number)?;
        loop {
            let credit = self.credit()?;
            self.parts.at.store(number, Ordering::Relaxed);
            fault::numbered("decode:frame", number);
            let Some(frame) = self.decoder.next_frame()? else {
                self.close(current.take(), None);
                return Ok(Fed::Whole(number));
            };
            if let Some(why) = &frame.concealed {
                self.concealed.push(number);
                self.concealed_why.get_or_insert_with(|| why.clone());
            }
            let segment = self.parts.cuts.segment_of(frame.pts, previous.unwrap_or(SegmentIndex(0)));
            if current.as_ref().is_none_or(|c| c.segment != segment) {
                self.close(current.take(), Some(segment));
                if run.stop_at == Some(segment) {
                    return Ok(Fed::Whole(number));
                }
                if self.parts.order.ends_before(segment) {
                    return Ok(Fed::Enough);
                }
                if self.parts.stop_at_cut.load(Ordering::SeqCst) {
                    return Err(ActorError::Cancelled);
                }
                // Where a run before was left out, only an earlier attempt knows how many frames it has.
                number = self.parts.order.first_frames.get(&segment).copied().unwrap_or(number);
                *current = Some(self.enter(segment, previous, number)?);
                previous = Some(segment);
            }
            if let Some(current) = current {
                self.push(current, frame, number, credit)?;
            }
            number += 1;
        }
    }

    fn credit(&self) -> Result<Credit> {
        let _full = self.progress.waiting_downstream();
        self.parts.credits.acquire(self.parts.frame_bytes, &self.parts.stop).map_err(|_| ActorError::Cancelled)
    }

    /// Puts the decoder at the beginning of a run and returns the segment before it.
    fn position(&mut self, run: &Run, number: u64) -> Result<Option<SegmentIndex>> {
        match run.resume {
            Resume::Start => self.decoder.start_from_beginning().map(|()| None),
            Resume::After(anchor) => {
                // The anchor is the last frame of the segment before, which holds at least one.
                let index = number.saturating_sub(1);
                self.decoder.resume_after(Anchor { index, pts: anchor.pts, hash: anchor.hash.0 })?;
                Ok(Some(anchor.segment))
            }
        }
    }

    /// Puts an attempt on record and opens the segment, if the pass makes it.
    fn enter(&self, segment: SegmentIndex, previous: Option<SegmentIndex>, first_frame: u64) -> Result<Current> {
        let (order, ledger) = (&self.parts.order, self.parts.segments.ledger());
        let _storage_or_assembler = self.progress.waiting_downstream();
        let passing = !order.scope.makes(segment);
        let begun = AttemptBegun {
            alone: order.alone() == Some(segment),
            first_item: Some(first_frame),
            passing,
            ..AttemptBegun::new(ledger.writer(), order.frames_finished)
        };
        let attempt = ledger.begin(segment, &begun)?;
        let fate = match passing {
            true => Fate::Passed(attempt),
            false => Fate::Made(self.open(segment, previous, first_frame, attempt)?),
        };
        Ok(Current { segment, frames: 0, fate })
    }

    /// Waits for an assembler and hands it the segment.
    fn open(
        &self,
        segment: SegmentIndex,
        previous: Option<SegmentIndex>,
        first_frame: u64,
        attempt: u32,
    ) -> Result<LinkSender<Arrival>> {
        // Every credit may be on its way to one segment, and its end besides: a send on this link never waits.
        let (route, arrivals) = link("segment", self.parts.credits.limit().items + 2);
        let open = OpenSegment { segment, previous, first_frame, attempt, arrivals };
        select! {
            send(self.parts.opener, open) -> sent => match sent {
                Ok(()) => Ok(route),
                Err(unsent) => self.take_back(&unsent.into_inner()),
            },
            recv(self.parts.stop.ended()) -> _ => {
                self.explain(segment, attempt);
                Err(ActorError::Cancelled)
            }
        }
    }

    fn take_back(&self, open: &OpenSegment) -> Result<LinkSender<Arrival>> {
        self.explain(open.segment, open.attempt);
        Err(ActorError::Cancelled)
    }

    /// Records that an attempt ended without anything being wrong with its segment.
    fn explain(&self, segment: SegmentIndex, attempt: u32) {
        let _storage = self.progress.waiting_downstream();
        if let Err(error) = self.parts.segments.ledger().end_attempt(segment, attempt, &AttemptEnd::Preempted) {
            // Unexplained, the attempt counts as a death: harsher than it was, never wrong.
            tracing::warn!(%segment, %error, "the end of an attempt could not be recorded");
        }
    }

    /// Tells the assembler of a segment that the decoder has passed it.
    fn close(&self, current: Option<Current>, next: Option<SegmentIndex>) {
        match current {
            Some(Current { frames, fate: Fate::Made(route), .. }) => {
                // The link has room for every credit and the end; an assembler that died is seen by the pass.
                let _ = route.try_send(Arrival::End(SegmentEnd { frames, next }));
            }
            Some(Current { segment, fate: Fate::Passed(attempt), .. }) => self.explain(segment, attempt),
            None => {}
        }
    }

    fn push(&self, current: &mut Current, frame: DecodedFrame, number: u64, credit: Credit) -> Result<()> {
        let id = ItemId { segment: current.segment, index: ItemIndex(current.frames) };
        current.frames += 1;
        let Fate::Made(route) = &current.fate else { return Ok(()) };
        self.parts.board.decoded(number);
        match self.adopted(id, &frame, number)? {
            Some(scored) => {
                // An assembler that died is seen by the pass.
                let _ = route.try_send(Arrival::Scored(Item::new(id, scored, credit)));
            }
            None => {
                let task = FrameTask { frame, number, route: route.clone() };
                self.parts.pool.push(Item::new(id, task, credit)).map_err(|_| ActorError::Cancelled)?;
            }
        }
        Ok(())
    }

    /// Returns what a pack holds for exactly this source frame.
    fn adopted(&self, id: ItemId, frame: &DecodedFrame, number: u64) -> Result<Option<ScoredFrame>> {
        let held = self.parts.adopted.get(&id.segment).and_then(|a| a.items.get(&id.index));
        let same = held.filter(|h| h.item.pts == frame.pts && h.item.source == SourceHash(frame.hash));
        let Some(held) = same else { return Ok(None) };
        let _storage = self.progress.waiting_downstream();
        let bytes = self.parts.segments.read_adopted(held)?;
        let scored = bytes.and_then(|b| packed::from_bytes(&b));
        let (pts, duration, hash) = (frame.pts, frame.duration, frame.hash);
        Ok(scored.map(|scored| ScoredFrame { number, pts, duration, hash, scored, adopted: true }))
    }
}

/// Counts the frames of the finished segments that lie between the run before and this one.
fn finished_between(scan: &Scan, run: &Run) -> u64 {
    let Resume::After(anchor) = run.resume else { return 0 };
    // Backwards from the anchor along the chain until a segment is missing: that one belongs to the run before.
    let mut frames = 0;
    let mut segment = Some(anchor.segment);
    while let Some(header) = segment.and_then(|s| scan.finished.get(&s)) {
        frames += u64::from(header.items);
        segment = header.previous;
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_follow_the_first_frame_and_never_go_back() {
        let mut cuts = Cuts { ticks: 100, origin: None };
        let segments: Vec<u32> = [950, 1000, 1049, 1050, 1700, 1100]
            .into_iter()
            .scan(SegmentIndex(0), |previous, pts| {
                *previous = cuts.segment_of(pts, *previous);
                Some(previous.0)
            })
            .collect();
        assert_eq!(segments, [0, 0, 0, 1, 7, 7]);
    }
}
