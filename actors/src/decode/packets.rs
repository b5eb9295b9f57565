//! Packets through the decoder: turns a stream into frames placed in time.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use restyle_engine::{CancelToken, Progress};

use super::timeline::{Arrival, Placed, Timeline};
use crate::decode::DecodeOptions;
use crate::error::{ActorError, Result};
use crate::ffmpeg::AvError;
use crate::ffmpeg::decoder::Decoder;
use crate::ffmpeg::demux::{Demuxer, ReadError};
use crate::ffmpeg::packet::RawPacket;
use crate::ffmpeg::raw_frame::RawFrame;

/// A frame as the decoder gave it, shared with those that repeat it.
pub(crate) type Shared = Arc<RawFrame>;

/// Errors in a row, without a frame between, after which a decoder that is being drained is given up.
const DRAIN_ERRORS_MAX: u32 = 1_000;
/// Timestamps of flagged packets that are remembered.
const CORRUPT_MAX: usize = 100_000;

/// Demuxes and decodes one stream into placed frames.
pub(crate) struct PacketDecoder {
    demuxer: Demuxer,
    decoder: Decoder,
    stream: usize,
    timeline: Timeline<Shared>,
    /// Timestamps of packets that the demuxer flagged.
    corrupt: HashSet<i64>,
    ready: VecDeque<Placed<Shared>>,
    state: State,
    /// The card that decodes, by its number, where one does.
    card: Option<usize>,
    cancel: CancelToken,
    progress: Progress,
    last_sent: Option<i64>,
    drain_errors: u32,
    packets_read: u64,
    packets_before_first_max: Option<u64>,
    wait_for_key: bool,
    /// Timestamp of the first key packet after a seek.
    first_key: Option<i64>,
    broke_off: Option<AvError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Draining,
    Done,
}

impl PacketDecoder {
    /// Starts where the demuxer stands, which is the beginning of a fresh one.
    pub(crate) fn new(
        mut demuxer: Demuxer,
        decoder: Decoder,
        stream: usize,
        timeline: Timeline<Shared>,
        options: &DecodeOptions,
    ) -> Self {
        demuxer.keep_only(&[stream]);
        Self {
            demuxer,
            decoder,
            stream,
            timeline,
            corrupt: HashSet::new(),
            ready: VecDeque::new(),
            state: State::Reading,
            card: options.card,
            cancel: options.cancel.clone(),
            progress: options.progress.clone(),
            last_sent: None,
            drain_errors: 0,
            packets_read: 0,
            packets_before_first_max: None,
            wait_for_key: false,
            first_key: None,
            broke_off: None,
        }
    }

    /// Gives up after so many packets without a good frame.
    pub(crate) fn with_patience(mut self, packets_max: u64) -> Self {
        self.packets_before_first_max = Some(packets_max);
        self
    }

    /// Shows the decoder the stream's first access unit, drops what it gives, and goes to a key packet at or before a
    /// timestamp.
    ///
    /// Some decoders learn from the first access unit what no later one repeats (which encoder, and so which of its faults
    /// to allow for). Returns false where the container cannot be sought in.
    pub(crate) fn seek_primed(&mut self, timestamp: i64) -> Result<bool> {
        if let Some(first) = self.first_key_packet()? {
            let _ = self.decoder.send(Some(&first));
            let _ = self.decoder.send(None);
            for _ in 0..64 {
                if matches!(self.decoder.receive(), Err(AvError::EOF)) {
                    break;
                }
            }
            self.decoder.flush();
        }
        self.wait_for_key = true;
        match self.demuxer.seek(self.stream, timestamp) {
            Ok(()) => Ok(true),
            Err(ReadError::Blob(error)) => Err(error),
            Err(ReadError::Broken(_)) => Ok(false),
        }
    }

    /// Reads from the beginning to the stream's first key packet.
    fn first_key_packet(&mut self) -> Result<Option<RawPacket>> {
        const PACKETS_MAX: u32 = 20_000;
        for _ in 0..PACKETS_MAX {
            self.check_cancelled()?;
            match self.demuxer.read() {
                Ok(Some(packet)) if packet.stream() == self.stream && packet.is_key() => return Ok(Some(packet)),
                Ok(Some(_)) => {}
                Ok(None) | Err(ReadError::Broken(_)) => return Ok(None),
                Err(ReadError::Blob(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Returns the next frame in its place; `None` at the end. Blocks on reads of the source.
    pub(crate) fn next(&mut self) -> Result<Option<Placed<Shared>>> {
        loop {
            if let Some(placed) = self.ready.pop_front() {
                return Ok(Some(placed));
            }
            if self.state == State::Done {
                return Ok(None);
            }
            self.check_cancelled()?;
            self.step()?;
        }
    }

    /// The demuxer, for questions about the stream.
    pub(crate) fn demuxer(&self) -> &Demuxer {
        &self.demuxer
    }

    /// Timestamp of the first key packet that a seek led to.
    pub(crate) fn first_key(&self) -> Option<i64> {
        self.first_key
    }

    /// Whether a good frame has come.
    pub(crate) fn has_begun(&self) -> bool {
        self.timeline.has_begun()
    }

    /// How many frames were dropped before the first good one, and why.
    pub(crate) fn dropped_before_first(&self) -> (u64, Option<&str>) {
        (self.timeline.dropped_before_first.0, self.timeline.dropped_before_first.1.as_deref())
    }

    /// How many timestamps were moved to keep them growing.
    pub(crate) fn moved_timestamps(&self) -> u64 {
        self.timeline.moved
    }

    /// Why the container could not be followed to its end, where that was so.
    pub(crate) fn broke_off(&self) -> Option<AvError> {
        self.broke_off
    }

    /// Once a packet.
    fn check_cancelled(&self) -> Result<()> {
        self.progress.tick();
        if self.cancel.is_cancelled() { Err(ActorError::Cancelled) } else { Ok(()) }
    }

    fn step(&mut self) -> Result<()> {
        match self.decoder.receive() {
            Ok(frame) => {
                self.drain_errors = 0;
                self.arrive(frame);
                Ok(())
            }
            Err(AvError::AGAIN) if self.state == State::Reading => self.feed(),
            Err(AvError::EOF) => {
                self.finish();
                Ok(())
            }
            Err(AvError::NO_MEMORY) => {
                Err(ActorError::Codec(format!("decoding {} needs more memory than there is", self.demuxer.shown())))
            }
            Err(error) => {
                self.lose(error)?;
                self.drain_errors += u32::from(self.state == State::Draining);
                if self.drain_errors > DRAIN_ERRORS_MAX {
                    self.finish();
                }
                Ok(())
            }
        }
    }

    fn finish(&mut self) {
        self.state = State::Done;
        let last = self.timeline.finish();
        self.ready.extend(last);
        if let Some(error) = self.broke_off.filter(|_| self.timeline.has_begun()) {
            self.ready.extend(self.timeline.break_off(format!("the container cannot be followed further: {error}")));
        }
    }

    fn feed(&mut self) -> Result<()> {
        let impatient = self.packets_before_first_max.is_some_and(|max| self.packets_read >= max);
        if impatient && !self.timeline.has_begun() {
            self.state = State::Done;
            return Ok(());
        }
        match self.demuxer.read() {
            Ok(Some(packet)) => {
                self.packets_read += 1;
                self.hand_in(&packet)
            }
            Ok(None) => {
                self.drain();
                Ok(())
            }
            Err(ReadError::Broken(error)) => {
                self.broke_off = Some(error);
                self.drain();
                Ok(())
            }
            Err(ReadError::Blob(error)) => Err(error),
        }
    }

    fn drain(&mut self) {
        self.state = State::Draining;
        let _ = self.decoder.send(None);
    }

    fn hand_in(&mut self, packet: &RawPacket) -> Result<()> {
        // An empty packet would mean the end to the decoder.
        if packet.stream() != self.stream || packet.data().is_empty() {
            return Ok(());
        }
        if self.wait_for_key {
            if !packet.is_key() {
                return Ok(());
            }
            self.wait_for_key = false;
            self.first_key = packet.dts().into_iter().chain(packet.pts()).min();
        }
        let at = packet.pts().or(packet.dts());
        if packet.is_corrupt() && self.corrupt.len() < CORRUPT_MAX {
            self.corrupt.extend(at);
        }
        self.last_sent = at.filter(|_| !packet.is_discarded());
        match self.decoder.send(Some(packet)) {
            Err(error) if !packet.is_discarded() => self.lose(error),
            _ => Ok(()),
        }
    }

    /// Notes a frame that did not come. A card that fails is no damage of the source: nothing is concealed for it.
    fn lose(&mut self, error: AvError) -> Result<()> {
        if let Some(card) = self.card.filter(|_| error == AvError::EXTERNAL) {
            return Err(ActorError::Device(format!(
                "the decoder of cuda:{card} failed on {}: {error}; run the same command again, with --decode cpu where it fails again",
                self.demuxer.shown()
            )));
        }
        self.timeline.lose(self.last_sent, format!("the decoder failed: {error}"));
        Ok(())
    }

    fn arrive(&mut self, frame: RawFrame) {
        let flagged = |at: Option<i64>| at.is_some_and(|at| self.corrupt.contains(&at));
        let fault = if frame.is_corrupt() {
            Some("the decoder flagged it as corrupt".to_owned())
        } else if let Some(errors) = frame.decode_errors() {
            Some(format!("the decoder reports {errors}"))
        } else if flagged(frame.pts().or(frame.packet_dts())) {
            Some("its packet is flagged as corrupt".to_owned())
        } else {
            None
        };
        let arrival =
            Arrival { pts: frame.best_effort_pts(), duration: frame.duration(), fault, payload: Arc::new(frame) };
        let placed = self.timeline.place(arrival);
        self.ready.extend(placed);
    }
}
