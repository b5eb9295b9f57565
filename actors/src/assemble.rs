//! The encoder stage: puts the scored frames of a segment in order, writes them and commits the segment.
//!
//! A segment is committed whole or not at all. An assembler that fails or is abandoned leaves no segment; what it had put into packs is adopted
//! by the next pass, which does the rest again.

use crate::board::FrameBoard;
use crate::error::{ActorError, ErrorKind, Result};
use crate::packed;
use crate::task::{Arrival, OpenSegment, ScoredFrame, SegmentEnd};
use crate::writer::{SegmentWriter, WriterFactory};
use crossbeam_channel::{Receiver, Sender};
use restyle_engine::cancel::CancelToken;
use restyle_engine::clock::Clock;
use restyle_engine::fault;
use restyle_engine::item::{Item, ItemIndex, SegmentIndex};
use restyle_engine::ledger::{
    AttemptEnd, PackPolicy, PackWriter, PackedItem, SegmentHeader, SegmentLedger, SourceHash,
};
use restyle_engine::progress::Progress;
use restyle_engine::reorder::Reorder;
use restyle_engine::worker::{NodeId, WorkerContext};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How an open segment ended.
#[derive(Debug)]
pub enum Assembled {
    /// It is in the ledger.
    Committed {
        /// Which.
        segment: SegmentIndex,
        /// Its frames.
        frames: u32,
        /// Frames of it that came from packs.
        adopted: u32,
        /// From its opening until it stood.
        took: Duration,
    },
    /// The pass ended before the segment did; frames that are not in a pack are lost.
    Abandoned {
        /// Which.
        segment: SegmentIndex,
    },
    /// It cannot be made.
    Failed {
        /// Which.
        segment: SegmentIndex,
        /// Why.
        error: ActorError,
    },
}

/// What the assemblers of a pass share.
#[derive(Clone)]
pub struct AssemblerParts {
    /// Brings segments.
    pub opened: Receiver<OpenSegment>,
    /// Takes how each ended.
    pub results: Sender<Assembled>,
    /// Builds the writer of a segment.
    pub writers: WriterFactory,
    /// Where segments are committed.
    pub segments: SegmentLedger,
    /// Counts frames that were scored, for progress.
    pub frames_done: Arc<AtomicU64>,
    /// Counts frames that came from packs.
    pub frames_adopted: Arc<AtomicU64>,
    /// Whether frames go into packs: set while scoring is slow.
    pub packing: Arc<AtomicBool>,
    /// Ends what cannot be completed any more.
    pub give_up: CancelToken,
    /// What each assembler works on.
    pub under_way: Arc<UnderWay>,
    /// Where onlookers see what each frame has come to.
    pub board: Arc<FrameBoard>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// The attempts that assemblers have under way, so that a hang can be held against the right segment.
#[derive(Debug, Default)]
pub struct UnderWay(Mutex<HashMap<NodeId, Attempt>>);

/// An attempt at a segment, and how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Which segment.
    pub segment: SegmentIndex,
    /// The attempt's number in the ledger.
    pub number: u32,
    /// Global index of the segment's first frame.
    pub first_frame: u64,
    /// Frames that its writer has taken.
    pub written: u32,
}

impl UnderWay {
    /// Returns what a node works on.
    #[must_use]
    pub fn of(&self, node: &NodeId) -> Option<Attempt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(node).copied()
    }

    fn set(&self, node: &NodeId, attempt: Option<Attempt>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match attempt {
            Some(attempt) => held.insert(node.clone(), attempt),
            None => held.remove(node),
        };
    }
}

/// The encoder stage of one pass, on one thread.
pub struct Assembler {
    parts: AssemblerParts,
    node: NodeId,
    progress: Progress,
}

impl Assembler {
    /// Builds the stage.
    #[must_use]
    pub fn new(parts: AssemblerParts, context: &WorkerContext) -> Self {
        Self { parts, node: context.node.clone(), progress: context.progress.clone() }
    }

    /// Assembles segments until no more are opened.
    pub fn run(self) {
        loop {
            let waiting = self.progress.waiting_upstream();
            let Ok(open) = self.parts.opened.recv() else { return };
            drop(waiting);
            let assembled = self.assemble(&open);
            self.parts.under_way.set(&self.node, None);
            let failed = matches!(assembled, Assembled::Failed { .. });
            if self.parts.results.send(assembled).is_err() {
                return;
            }
            if failed {
                self.discard(&open);
            }
        }
    }

    /// Takes what else comes for a segment that failed: frames that nobody takes would keep their credits, and the decoder waiting.
    fn discard(&self, open: &OpenSegment) {
        let _waiting = self.progress.waiting_upstream();
        while open.arrivals.recv(&self.parts.give_up).is_ok() {}
    }

    fn assemble(&self, open: &OpenSegment) -> Assembled {
        let (segment, ledger) = (open.segment, self.parts.segments.ledger());
        let opened = self.parts.clock.now();
        let mut assembly = Assembly::new(self, open);
        let unwound = catch_unwind(AssertUnwindSafe(|| assembly.make(open)));
        let ended = unwound.unwrap_or_else(|_| Err(assembly.panicked()));
        let (explained, assembled) = match ended {
            Ok(Some((frames, adopted))) => {
                let took = self.parts.clock.now().saturating_sub(opened);
                return Assembled::Committed { segment, frames, adopted, took };
            }
            Ok(None) => (AttemptEnd::Preempted, Assembled::Abandoned { segment }),
            Err(error) => (assembly.explain(&error), Assembled::Failed { segment, error }),
        };
        let _storage = self.progress.waiting_downstream();
        if let Err(error) = ledger.end_attempt(segment, open.attempt, &explained) {
            // Unexplained, the attempt counts as a death: harsher than it was, never wrong.
            tracing::warn!(%segment, %error, "the end of an attempt could not be recorded");
        }
        assembled
    }
}

/// One segment under way.
struct Assembly<'a> {
    parts: &'a AssemblerParts,
    node: &'a NodeId,
    progress: &'a Progress,
    segment: SegmentIndex,
    attempt: u32,
    previous: Option<SegmentIndex>,
    first_frame: u64,
    waiting: Reorder<Item<ScoredFrame>>,
    writer: Option<Box<dyn SegmentWriter>>,
    packs: PackWriter,
    packed: bool,
    written: u32,
    adopted: u32,
    first_pts: i64,
    last: (i64, u128),
}

impl<'a> Assembly<'a> {
    fn new(assembler: &'a Assembler, open: &OpenSegment) -> Self {
        let Assembler { parts, node, progress } = assembler;
        let window = open.arrivals.stats().capacity;
        Self {
            parts,
            node,
            progress,
            segment: open.segment,
            attempt: open.attempt,
            previous: open.previous,
            first_frame: open.first_frame,
            waiting: Reorder::new(ItemIndex(0), window),
            writer: None,
            packs: parts.segments.pack_writer(open.segment, PackPolicy::default(), Arc::clone(&parts.clock)),
            packed: false,
            written: 0,
            adopted: 0,
            first_pts: 0,
            last: (0, 0),
        }
    }

    /// Makes and commits the segment and returns its frames and how many of them came from packs; `None` when it will never be
    /// whole in this pass.
    fn make(&mut self, open: &OpenSegment) -> Result<Option<(u32, u32)>> {
        self.note();
        match self.take_all(open)? {
            Some(end) => self.commit(end).map(Some),
            None => self.keep().map(|()| None),
        }
    }

    /// Takes arrivals until the segment is whole; `None` when it never will be.
    fn take_all(&mut self, open: &OpenSegment) -> Result<Option<SegmentEnd>> {
        let mut end: Option<SegmentEnd> = None;
        while end.is_none_or(|e| self.written < e.frames) {
            // What has arrived is taken even when the pass gives up: it may go into a pack.
            let arrival = open.arrivals.try_recv().or_else(|_| {
                let _waiting = self.progress.waiting_upstream();
                open.arrivals.recv(&self.parts.give_up)
            });
            let Ok(arrival) = arrival else { return Ok(None) };
            self.progress.tick();
            match arrival {
                Arrival::End(seen) => end = Some(seen),
                Arrival::Failed { number, message } => return Err(ActorError::frame_failed(number, &message)),
                Arrival::Scored(item) => self.take(item)?,
            }
        }
        Ok(end)
    }

    fn take(&mut self, item: Item<ScoredFrame>) -> Result<()> {
        if item.payload.adopted {
            self.adopted += 1;
            self.parts.frames_adopted.fetch_add(1, Ordering::Relaxed);
        } else {
            self.parts.frames_done.fetch_add(1, Ordering::Relaxed);
            self.pack(&item)?;
        }
        self.waiting.insert(item.id.index, item).map_err(|refused| ActorError::Codec(refused.to_string()))?;
        while let Some(item) = self.waiting.pop() {
            // The credit goes back when the item is dropped, here: the writer has taken the pixels.
            self.write(&item.payload)?;
        }
        Ok(())
    }

    /// Makes a finished frame durable before its segment is, while that takes long.
    fn pack(&mut self, item: &Item<ScoredFrame>) -> Result<()> {
        if !self.parts.packing.load(Ordering::Relaxed) {
            return Ok(());
        }
        let bytes = packed::to_bytes(&item.payload.scored).map_err(|e| ActorError::Codec(e.to_string()))?;
        let entry = PackedItem { index: item.id.index, pts: item.payload.pts, source: SourceHash(item.payload.hash) };
        self.packed = true;
        fault::point("pack:append");
        let _storage = self.progress.waiting_downstream();
        self.packs.append(&entry, &bytes).map_err(ActorError::from)
    }

    fn write(&mut self, frame: &ScoredFrame) -> Result<()> {
        self.note();
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                self.first_pts = frame.pts;
                none.insert((self.parts.writers)()?)
            }
        };
        fault::numbered("encode:frame", frame.number);
        writer.push(frame)?;
        self.parts.board.encoded(frame.number);
        self.written += 1;
        self.last = (frame.pts, frame.hash);
        Ok(())
    }

    /// Tells how far it is.
    fn note(&self) {
        let (segment, number) = (self.segment, self.attempt);
        let attempt = Attempt { segment, number, first_frame: self.first_frame, written: self.written };
        self.parts.under_way.set(self.node, Some(attempt));
    }

    fn panicked(&self) -> ActorError {
        let frame = self.first_frame + u64::from(self.written);
        let message = format!("encoding segment {} panicked at frame {frame}", self.segment);
        ActorError::Crashed { frames: vec![frame], message }
    }

    fn commit(&mut self, end: SegmentEnd) -> Result<(u32, u32)> {
        let writer = self
            .writer
            .take()
            .ok_or_else(|| ActorError::Codec("a segment without frames cannot be committed".into()))?;
        let payload = writer.finish()?;
        let _storage = self.progress.waiting_downstream();
        let header = SegmentHeader {
            segment: self.segment,
            items: end.frames,
            previous: self.previous,
            next: end.next,
            first_pts: self.first_pts,
            last_pts: self.last.0,
            last_hash: SourceHash(self.last.1),
            writer: self.parts.segments.ledger().writer().to_owned(),
        };
        fault::point("assemble:before_commit");
        self.parts.segments.commit(&header, &payload)?;
        fault::point("assemble:after_commit");
        if (self.packed || self.adopted > 0)
            && let Err(error) = self.parts.segments.drop_packs(self.segment)
        {
            tracing::warn!(segment = %self.segment, %error, "packs of a finished segment could not be deleted");
        }
        Ok((end.frames, self.adopted))
    }

    /// Seals what is packed of a segment that will not be whole in this pass.
    fn keep(&mut self) -> Result<()> {
        let _storage = self.progress.waiting_downstream();
        self.packs.seal().map_err(ActorError::from)
    }

    /// Says why the attempt failed, with the frame concerned as an index in the segment. What the world did is no failure of the segment.
    fn explain(&self, error: &ActorError) -> AttemptEnd {
        if !matches!(error.kind(), ErrorKind::Codec | ErrorKind::Damaged | ErrorKind::InputUnreadable) {
            return AttemptEnd::Preempted;
        }
        let in_segment = |n: &u64| n.checked_sub(self.first_frame).and_then(|n| u32::try_from(n).ok()).map(ItemIndex);
        AttemptEnd::Failed { message: error.to_string(), items: error.frames().iter().filter_map(in_segment).collect() }
    }
}
