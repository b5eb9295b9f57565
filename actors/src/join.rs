//! Join: segments to one file, with every other track of the source beside them.
//!
//! The source is read a second time, as packets only, and its tracks are copied while segments are pulled one by one, so
//! memory does not grow with the film. Bytes written depend on the source, the settings and the segments alone: the
//! muxer is bit-exact and every order is fixed. Nothing is ever decoded or coded here.

mod codec_delay;
mod copied;
mod styled;
pub mod timeline;

use std::collections::VecDeque;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use restyle_engine::CancelToken;

use self::copied::CopiedTrack;
pub use self::styled::Segments;
use self::styled::StyledTrack;
use self::timeline::{is_later, rescale};
use crate::encode::{Container, EncoderSettings};
use crate::ffmpeg::demux::{Demuxer, ReadError};
use crate::ffmpeg::mux::{Muxer, PacketTimes, initial_padding};
use crate::ffmpeg::packet::RawPacket;
use crate::ffmpeg::{AvError, log};
use crate::source_info::{ChapterInfo, Rational, SourceInfo, StreamKind};
use crate::storage::Blob;
use crate::tracks::{self, Carriage, TrackPlan, tags};
use crate::{ActorError, Result};

/// Packets looked at to learn where each sound track begins, and their bytes.
const PEEK_PACKETS_MAX: usize = 2048;
const PEEK_BYTES_MAX: usize = 32 << 20;
/// Sound that begins longer before time zero than this is not declared as priming.
const PRIMING_NANOS_MAX: i64 = 1_000_000_000;
const NANOS: Rational = Rational::new(1, 1_000_000_000);

/// What is to be joined, and where.
pub struct JoinRequest<'a> {
    /// The source, for its other tracks.
    pub blob: &'a Arc<Blob>,
    /// What the probe said of it.
    pub source: &'a SourceInfo,
    /// Settings that all segments were coded with.
    pub settings: &'a EncoderSettings,
    /// The segments in order; pulled one at a time.
    pub segments: Segments<'a>,
    /// File to write; replaced where it exists, removed where joining fails.
    pub staged: &'a Path,
    /// Stops the join.
    pub cancel: &'a CancelToken,
}

/// What was joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinReport {
    /// Styled frames in the file.
    pub frames: u64,
    /// Size of the file.
    pub bytes: u64,
    /// blake3 of the file, in hex.
    pub blake3: String,
    /// What of the source is not in the file, one line each.
    pub warnings: Vec<String>,
}

/// Tells what the join will leave out, without joining; reads only the source's headers. Blocks.
///
/// # Errors
/// The source's own; `Usage` in strict mode where something would be left out.
pub fn preview(blob: &Arc<Blob>, source: &SourceInfo, settings: &EncoderSettings) -> Result<Vec<String>> {
    let demuxer = Demuxer::open(blob)?;
    let (_, warnings) = plan(source, &demuxer, settings)?;
    Ok(warnings)
}

/// Joins segments and the source's other tracks into one staged file. Blocks.
///
/// # Errors
/// The source's own; `Codec` where segments do not fit each other or the muxer refuses them; `Usage` in strict mode
/// where something of the source would be left out; `DiskFull` and `Storage` of the staged file; `Cancelled`.
pub fn join(request: JoinRequest<'_>) -> Result<JoinReport> {
    let staged = request.staged;
    let joined = Join::open(request).and_then(Join::run);
    if joined.is_err() {
        // What is left of it serves nobody; the error at hand is the one that counts.
        let _ = std::fs::remove_file(staged);
    }
    joined
}

fn plan(source: &SourceInfo, demuxer: &Demuxer, settings: &EncoderSettings) -> Result<(Plan, Vec<String>)> {
    let (tracks, mut warnings) = tracks::plan(source, demuxer, settings);
    let is_cover = |plan: &TrackPlan| plan.carriage == Carriage::Copied && source.streams[plan.index].attached_picture;
    let file_tags = tags::of_file(source, settings.container, tracks.iter().any(is_cover));
    if !file_tags.lost.is_empty() {
        warnings.push(format!(
            "the file loses its tags {}: {} does not hold them",
            file_tags.lost.join(", "),
            settings.container
        ));
    }
    warnings.extend(rounded_aspect(settings));
    let is_rich = |chapter: &ChapterInfo| chapter.tags.keys().any(|key| key != "title");
    if settings.container != Container::Mkv && source.chapters.iter().any(is_rich) {
        warnings.push(format!("chapters keep their titles alone: {} holds no other tags of them", settings.container));
    }
    if let Some(first) = warnings.first().filter(|_| settings.strict) {
        return Err(ActorError::Usage(format!(
            "{first}; strict mode refuses this: name an output of another kind (mkv holds most)"
        )));
    }
    Ok((Plan { tracks, file_tags }, warnings))
}

/// WebM holds the displayed size in whole pixels and nothing finer, unlike the others.
fn rounded_aspect(settings: &EncoderSettings) -> Option<String> {
    let sar = settings.sample_aspect_ratio.filter(|_| settings.container == Container::Webm)?;
    let exact = i64::from(settings.width) * i64::from(sar.num) % i64::from(sar.den) == 0;
    (!exact).then(|| {
        format!("pixels of {}:{} are rounded: webm holds the displayed width in whole pixels", sar.num, sar.den)
    })
}

struct Plan {
    tracks: Vec<TrackPlan>,
    file_tags: tags::FileTags,
}

struct Join<'a> {
    source: &'a SourceInfo,
    settings: &'a EncoderSettings,
    staged: &'a Path,
    cancel: &'a CancelToken,
    demuxer: Demuxer,
    muxer: Muxer,
    styled: StyledTrack<'a>,
    styled_track: usize,
    styled_unit: Rational,
    styled_shift: i64,
    /// By stream of the source.
    copied: Vec<Option<CopiedTrack>>,
    peeked: VecDeque<RawPacket>,
    /// Of tracks that get them after the file is finished, in track order.
    delays_nanos: Vec<u64>,
    warnings: Vec<String>,
}

impl<'a> Join<'a> {
    fn open(request: JoinRequest<'a>) -> Result<Self> {
        let JoinRequest { blob, source, settings, segments, staged, cancel } = request;
        let mut demuxer = Demuxer::open(blob)?;
        let (plan, warnings) = plan(source, &demuxer, settings)?;
        let styled = StyledTrack::begin(segments, settings)?;
        let kept: Vec<_> = plan.tracks.iter().filter(|p| p.carriage == Carriage::Copied).map(|p| p.index).collect();
        demuxer.keep_only(&kept);
        let muxer = Muxer::create(settings.container, Some(staged)).map_err(|e| cannot_write(staged, e))?;
        let mut join = Self {
            source,
            settings,
            staged,
            cancel,
            demuxer,
            muxer,
            styled,
            styled_track: 0,
            styled_unit: settings.time_base,
            styled_shift: 0,
            copied: source.streams.iter().map(|_| None).collect(),
            peeked: VecDeque::new(),
            delays_nanos: Vec::new(),
            warnings,
        };
        join.declare_tracks(&plan).map_err(|e| cannot_write(staged, e))?;
        join.begin(&plan)?;
        Ok(join)
    }

    fn run(mut self) -> Result<JoinReport> {
        while let Some(packet) = self.next_source_packet()? {
            self.check_cancelled()?;
            let Some(track) = self.copied.get(packet.stream()).and_then(Option::as_ref) else { continue };
            if let (Some(time), false) = (CopiedTrack::order_time(&packet), track.is_cover) {
                let unit = track.unit;
                self.write_styled_until(Some((time, unit)))?;
            }
            self.write_copied(&packet)?;
        }
        self.write_styled_until(None)?;
        self.finish()
    }

    fn declare_tracks(&mut self, plan: &Plan) -> Result<(), AvError> {
        for track in &plan.tracks {
            let number = match &track.carriage {
                Carriage::Styled => {
                    let rate = self.source.video.average_frame_rate;
                    let number = self.muxer.add_styled(self.settings, self.styled.header(), rate)?;
                    self.muxer.copy_disposition(number, &self.demuxer, track.index);
                    self.styled_track = number;
                    number
                }
                Carriage::Copied => {
                    let number = self.muxer.add_copied(&self.demuxer, track.index)?;
                    self.copied[track.index] = Some(CopiedTrack::new(&self.source.streams[track.index], number));
                    number
                }
                Carriage::Attached => self.muxer.add_picture_as_attachment(&self.demuxer, track.index)?,
                Carriage::Implied | Carriage::Dropped(_) => continue,
            };
            self.muxer.set_tags(Some(number), &track.tags);
        }
        self.muxer.set_tags(None, &plan.file_tags.tags);
        Ok(())
    }

    /// Decides where time zero lies, writes the header and tells every track its unit.
    fn begin(&mut self, plan: &Plan) -> Result<()> {
        let is_mov = self.settings.container.is_mov_like();
        let starts = if is_mov { Vec::new() } else { self.peek_starts()? };
        let delays = if is_mov { Vec::new() } else { self.priming(&starts, plan) };
        let shift = self.shift(&starts, &delays);
        let chapters = self.chapters(shift);
        let written = self.muxer.set_chapters(&chapters).and_then(|()| self.muxer.begin(&self.muxer_options(plan)));
        written.map_err(|e| cannot_write(self.staged, e))?;
        self.styled_shift = rescale(shift.0, shift.1, self.muxer.time_base(self.styled_track));
        for track in self.copied.iter_mut().flatten() {
            let unit = self.muxer.time_base(track.track);
            let delay = delays.iter().find(|delay| delay.index == track.index).map_or(0, |delay| delay.nanos);
            track.begin(unit, rescale(shift.0, shift.1, unit) + rescale(delay, NANOS, unit), !is_mov);
            if is_mov && track.is_audio {
                track.count_samples(initial_padding(&self.demuxer, track.index));
            }
        }
        Ok(())
    }

    /// Reads ahead until every sound track has begun and returns where each track begins.
    fn peek_starts(&mut self) -> Result<Vec<(usize, i64)>> {
        let mut starts: Vec<(usize, i64)> = Vec::new();
        let mut bytes = 0;
        let is_missing = |starts: &[(usize, i64)], copied: &[Option<CopiedTrack>]| {
            copied.iter().flatten().any(|track| track.is_audio && starts.iter().all(|(index, _)| *index != track.index))
        };
        while is_missing(&starts, &self.copied) && self.peeked.len() < PEEK_PACKETS_MAX && bytes < PEEK_BYTES_MAX {
            let Some(packet) = self.read_source()? else { break };
            let index = packet.stream();
            let time = packet.pts().or(packet.dts());
            let is_new = starts.iter().all(|(known, _)| *known != index);
            let is_film = self.copied.get(index).and_then(Option::as_ref).is_some_and(|track| !track.is_cover);
            starts.extend(time.filter(|_| is_new && is_film).map(|time| (index, time)));
            bytes += packet.data().len();
            self.peeked.push_back(packet);
        }
        Ok(starts)
    }

    /// Finds the sound tracks whose beginning lies before time zero and that Matroska declares as priming.
    fn priming(&mut self, starts: &[(usize, i64)], plan: &Plan) -> Vec<Priming> {
        let mut found = Vec::new();
        for track in self.copied.iter().flatten().filter(|track| track.is_audio) {
            let stream = &self.source.streams[track.index];
            let start = starts.iter().find(|(index, _)| *index == track.index).map_or(0, |(_, time)| *time);
            let padding = initial_padding(&self.demuxer, track.index);
            if stream.codec == "opus" && padding > 0 {
                // FFmpeg's muxer declares it but, in this version, leaves it to the caller to move the packets.
                found.push(Priming { index: track.index, nanos: rescale(padding, Rational::new(1, 48_000), NANOS) });
            } else if start < 0 {
                let nanos = -rescale(start, track.unit, NANOS);
                if nanos > PRIMING_NANOS_MAX {
                    continue;
                }
                found.push(Priming { index: track.index, nanos });
                let title = plan.tracks.iter().find(|p| p.index == track.index).and_then(|p| p.tags.get("title"));
                let name = codec_delay::named(title.map(String::as_str));
                self.muxer.set_tags(Some(track.track), &[("title".to_owned(), name)].into());
                self.delays_nanos.push(nanos.cast_unsigned());
            }
        }
        found
    }

    /// By how much all times move so that none that the container cannot express is left, as ticks and their unit.
    fn shift(&mut self, starts: &[(usize, i64)], delays: &[Priming]) -> (i64, Rational) {
        let base = self.settings.time_base;
        let first = self.styled.first_pts();
        let shift = if self.settings.container.is_mov_like() {
            // Edit lists hide what lies before zero: fine for sound, but never for a frame.
            ((-first).max(0), base)
        } else {
            const MILLIS: Rational = Rational::new(1, 1000);
            let others = starts.iter().filter(|(index, _)| delays.iter().all(|delay| delay.index != *index));
            let earliest = others.map(|(index, time)| rescale(*time, self.source.streams[*index].time_base, MILLIS));
            let earliest = earliest.chain([rescale(first, base, MILLIS)]).min().unwrap_or(0);
            ((-earliest).max(0), MILLIS)
        };
        if shift.0 > 0 {
            let seconds = shift.0 as f64 * shift.1.as_f64();
            self.warnings.push(format!(
                "the source begins {seconds:.3} s before time zero, which {} cannot express: every time moves by that much",
                self.settings.container
            ));
        }
        shift
    }

    fn chapters(&self, shift: (i64, Rational)) -> Vec<ChapterInfo> {
        let moved = |chapter: &ChapterInfo| {
            let ticks = rescale(shift.0, shift.1, chapter.time_base);
            let start = (chapter.start + ticks).max(0);
            ChapterInfo { start, end: (chapter.end + ticks).max(start), ..chapter.clone() }
        };
        self.source.chapters.iter().map(moved).collect()
    }

    fn muxer_options(&self, plan: &Plan) -> Vec<(&'static str, String)> {
        if !self.settings.container.is_mov_like() {
            return vec![("default_mode", "passthrough".to_owned())];
        }
        let flags = if plan.file_tags.free_keys { "faststart+use_metadata_tags" } else { "faststart" };
        let mut options = vec![("movflags", flags.to_owned())];
        let is_film =
            |track: &CopiedTrack| self.source.streams[track.index].kind == StreamKind::Video && !track.is_cover;
        if !self.copied.iter().flatten().any(is_film) {
            // One for all video tracks; with others beside, the muxer's own choice is an exact multiple of each.
            options.push(("video_track_timescale", self.settings.time_base.den.to_string()));
        }
        options.push(("movie_timescale", self.movie_timescale().to_string()));
        options
    }

    /// A unit for edit lists in which the beginning of the film and of every sound track is exact.
    fn movie_timescale(&self) -> i64 {
        const LEAST: i64 = 1000;
        const MOST: i64 = 50_000_000;
        let rates = self.copied.iter().flatten().filter_map(|track| self.source.streams[track.index].audio.as_ref());
        let units = rates.map(|audio| i64::from(audio.sample_rate)).filter(|rate| *rate > 0);
        let video = i64::from(self.settings.time_base.den).max(1);
        units.chain([LEAST]).fold(video, |so_far, unit| {
            let common = so_far / gcd(so_far, unit) * unit;
            if common <= MOST { common } else { so_far }
        })
    }

    fn next_source_packet(&mut self) -> Result<Option<RawPacket>> {
        match self.peeked.pop_front() {
            Some(packet) => Ok(Some(packet)),
            None => self.read_source(),
        }
    }

    fn read_source(&mut self) -> Result<Option<RawPacket>> {
        if self.copied.iter().all(Option::is_none) {
            return Ok(None);
        }
        match self.demuxer.read() {
            Ok(packet) => Ok(packet),
            Err(ReadError::Blob(error)) => Err(error),
            Err(ReadError::Broken(error)) => {
                let line = format!("the source cannot be followed to its end ({error}): its other tracks end there");
                self.lose(line)?;
                Ok(None)
            }
        }
    }

    /// Notes something that is left out; an error in strict mode.
    fn lose(&mut self, line: String) -> Result<()> {
        if self.settings.strict {
            return Err(ActorError::Usage(format!("{line}; strict mode refuses this")));
        }
        self.warnings.push(line);
        Ok(())
    }

    /// Writes the styled packets that are decoded no later than a time of the source, or all that are left.
    fn write_styled_until(&mut self, limit: Option<(i64, Rational)>) -> Result<()> {
        let unit = self.styled_unit;
        let out_unit = self.muxer.time_base(self.styled_track);
        while let Some(dts) = self.styled.peek()? {
            if limit.is_some_and(|(time, limit_unit)| is_later(dts, unit, time, limit_unit)) {
                return Ok(());
            }
            self.check_cancelled()?;
            let Some(styled) = self.styled.pop() else { return Ok(()) };
            let time = |ticks: i64| Some(rescale(ticks, unit, out_unit) + self.styled_shift);
            let duration = rescale(styled.packet.duration, unit, out_unit);
            let times = PacketTimes { pts: time(styled.packet.pts), dts: time(styled.dts), duration };
            let written = self.muxer.write_bytes(self.styled_track, times, styled.packet.key, &styled.packet.data);
            written.map_err(|e| cannot_write(self.staged, e))?;
        }
        Ok(())
    }

    fn write_copied(&mut self, packet: &RawPacket) -> Result<()> {
        let Some(track) = self.copied.get_mut(packet.stream()).and_then(Option::as_mut) else { return Ok(()) };
        // What an edit list hides behind the end would be heard: the output's own edit list only hides what lies before
        // zero.
        let is_hidden_tail = self.settings.container.is_mov_like()
            && track.is_audio
            && packet.is_discarded()
            && packet.pts().is_some_and(|pts| pts >= 0);
        if is_hidden_tail {
            return Ok(());
        }
        let Some(times) = track.times(packet, &self.demuxer) else {
            track.refused_packets += 1;
            return Ok(());
        };
        match self.muxer.write_copied(track.track, times, packet) {
            Ok(()) => {}
            Err(AvError::INVALID_DATA | INVALID_ARGUMENT) => track.refused_packets += 1,
            Err(error) => return Err(cannot_write(self.staged, error)),
        }
        if self.styled.peek()?.is_none() {
            // FFmpeg would keep the rest of longer tracks in memory, waiting for styled packets that do not come.
            self.muxer.flush().map_err(|e| cannot_write(self.staged, e))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<JoinReport> {
        let refused: Vec<_> = self.copied.iter().flatten().filter(|track| track.refused_packets > 0).collect();
        let lines: Vec<_> = refused
            .iter()
            .map(|track| {
                let name = tracks::describe(&self.source.streams[track.index]);
                format!("{name} loses {} packets that {} does not take", track.refused_packets, self.settings.container)
            })
            .collect();
        for line in lines {
            self.lose(line)?;
        }
        self.muxer.finish().map_err(|e| cannot_write(self.staged, e))?;
        codec_delay::declare(self.staged, &self.delays_nanos).map_err(|e| {
            ActorError::from_write(&format!("cannot finish the joined file {}", self.staged.display()), &e)
        })?;
        let (bytes, blake3) = digest(self.staged)?;
        Ok(JoinReport { frames: self.styled.frames(), bytes, blake3, warnings: self.warnings })
    }

    fn check_cancelled(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(ActorError::Cancelled) } else { Ok(()) }
    }
}

const INVALID_ARGUMENT: AvError = AvError(-22);

struct Priming {
    index: usize,
    nanos: i64,
}

const fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Returns size and blake3 of a file. Blocks.
pub(crate) fn digest(path: &Path) -> Result<(u64, String)> {
    let failed = |e: std::io::Error| ActorError::storage(format!("cannot read {} back: {e}", path.display()));
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            return Ok((bytes, hasher.finalize().to_hex().to_string()));
        }
        hasher.update(&buffer[..count]);
        bytes += count as u64;
    }
}

fn cannot_write(staged: &Path, error: AvError) -> ActorError {
    let what = format!("cannot write the joined file {}", staged.display());
    // FFmpeg passes on the system's error numbers negated; its own are large.
    match -error.0 {
        system @ 1..=200 if error != INVALID_ARGUMENT => {
            ActorError::from_write(&what, &std::io::Error::from_raw_os_error(system))
        }
        _ => {
            let detail = log::take_last_error().map_or_else(String::new, |line| format!(" ({line})"));
            ActorError::Codec(format!("{what}: {error}{detail}"))
        }
    }
}
