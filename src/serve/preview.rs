//! One frame of a job as a picture: as it came, or as it was styled.
//!
//! The styled frame is taken from the finished output, and before there is one from the finished segment that holds it.

use super::entry::Entry;
use super::error::{ServiceError, ServiceErrorKind};
use super::ident::{ClientJobId, Scope};
use super::service::{Inner, Service, lock};
use super::view::{Jpeg, Side};
use crate::prepare::Plan;
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, RgbImage};
use restyle_actors::join::{JoinRequest, join};
use restyle_actors::{Anchor, Blob, DecodeOptions, DecodedFrame, EncodedSegment, FrameDecoder, Location};
use restyle_engine::cancel::CancelToken;
use restyle_engine::clock::Clock;
use restyle_engine::item::{JobId, SegmentIndex};
use restyle_engine::ledger::{Ledger, Scan, SegmentLedger};
use restyle_models::pixels::{Picture, RgbPlanes, to_rgb};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a frame is looked for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Widest preview in pixels.
const WIDTH_MAX: u32 = 3840;
const QUALITY: u8 = 85;

impl Service {
    /// Returns frame `frame` of a job, 0-based, scaled down to `width` where that is given. Decodes up to there: this may take
    /// seconds, and one is made at a time.
    ///
    /// # Errors
    /// `NotFound` for a job that is not there, a frame behind the last, or one that is not styled yet; `Unsupported` for one that
    /// lies too far in to be found in time; `Storage` where source or work store cannot be read.
    pub fn preview(
        &self,
        scope: &Scope,
        id: &ClientJobId,
        frame: u64,
        side: Side,
        width: Option<u32>,
    ) -> Result<Jpeg, ServiceError> {
        let entry = self.inner.find(scope, id)?;
        let _one = lock(&self.inner.previewing);
        let seeker = Seeker { clock: &*self.inner.clock, until: self.inner.clock.now() + PATIENCE, wanted: frame };
        let picture = match side {
            Side::Before => before(&self.inner, &entry, &seeker)?,
            Side::After => after(&self.inner, &entry, &seeker)?,
        };
        jpeg(&picture, width)
    }
}

fn failed(error: impl std::fmt::Display) -> ServiceError {
    ServiceError::storage(error.to_string())
}

fn missing(frame: u64) -> ServiceError {
    ServiceError::not_found(format!("there is no frame {frame} to be seen"))
}

/// Looks for one frame, for so long.
struct Seeker<'a> {
    clock: &'a dyn Clock,
    until: Duration,
    wanted: u64,
}

impl Seeker<'_> {
    /// Decodes a file up to frame `at` of it; `anchor` is a frame before that one, known from the job.
    fn decode(&self, location: &str, at: u64, anchor: Option<Anchor>) -> Result<Picture, ServiceError> {
        let blob = Arc::new(Blob::open(&Location::parse(location).map_err(failed)?).map_err(failed)?);
        let source = restyle_actors::probe(&blob).map_err(failed)?;
        let options = DecodeOptions { conceal: true, ..DecodeOptions::default() };
        let mut decoder = FrameDecoder::open(blob, &source, options).map_err(failed)?;
        if let Some(anchor) = anchor {
            decoder.resume_after(anchor).map_err(failed)?;
        }
        while let Some(DecodedFrame { index, picture, .. }) = decoder.next_frame().map_err(failed)? {
            if index == at {
                return Ok(picture);
            }
            if self.clock.now() > self.until {
                let message = format!("frame {} lies too far in to be found in time", self.wanted);
                return Err(ServiceError::new(ServiceErrorKind::Unsupported, message));
            }
        }
        Err(missing(self.wanted))
    }
}

fn before(inner: &Inner, entry: &Entry, seeker: &Seeker<'_>) -> Result<Picture, ServiceError> {
    let input = entry.lock().record.accepted.input_location.clone();
    // What a segment ended with is a place to start from; without one the file's beginning is.
    let held = Held::open(inner, entry).ok().flatten();
    let anchor = held.and_then(|held| held.anchor_before(seeker.wanted));
    seeker.decode(&input, seeker.wanted, anchor)
}

fn after(inner: &Inner, entry: &Entry, seeker: &Seeker<'_>) -> Result<Picture, ServiceError> {
    let (output, is_done) = {
        let state = entry.lock();
        (state.record.accepted.output_location.clone(), state.record.done.is_some())
    };
    if is_done {
        return seeker.decode(&output, seeker.wanted, None);
    }
    let held = Held::open(inner, entry)?.ok_or_else(|| missing(seeker.wanted))?;
    let (segment, first) = held.segment_of(seeker.wanted).ok_or_else(|| missing(seeker.wanted))?;
    let folder = inner.config().home().join("service-previews");
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let staged = folder.join(format!("{}.mkv", entry.short()));
    let picture = held
        .write(segment, &staged)
        .and_then(|()| seeker.decode(&staged.to_string_lossy(), seeker.wanted - first, None));
    let _ = std::fs::remove_file(&staged);
    picture
}

/// What the work store holds of a job.
struct Held {
    segments: SegmentLedger,
    scan: Scan,
    plan: Plan,
    input: String,
}

impl Held {
    /// Opens what there is of a job; `None` of one that is not planned.
    fn open(inner: &Inner, entry: &Entry) -> Result<Option<Self>, ServiceError> {
        let (job, input) = {
            let state = entry.lock();
            (state.live.job.clone(), state.record.accepted.input_location.clone())
        };
        let Some(job) = job.and_then(|j| j.parse::<JobId>().ok()) else { return Ok(None) };
        let ledger = Ledger::new(Arc::clone(inner.journal.objects()), job, "preview");
        let Some(plan) = ledger.plan().map_err(failed)? else { return Ok(None) };
        let segments = ledger.segments(&plan);
        let scan = segments.scan().map_err(failed)?;
        Ok(Some(Self { segments, scan, plan: plan.content().map_err(failed)?, input }))
    }

    /// Finished segments from the beginning on without a gap, with the number of their first frame.
    fn numbered(&self) -> impl Iterator<Item = (SegmentIndex, u64)> + '_ {
        let mut next = Some((SegmentIndex(0), 0));
        self.scan.finished.iter().map_while(move |(segment, header)| {
            let (_, first) = next.filter(|(expected, _)| expected == segment)?;
            next = header.next.map(|n| (n, first + u64::from(header.items)));
            Some((*segment, first))
        })
    }

    fn segment_of(&self, frame: u64) -> Option<(SegmentIndex, u64)> {
        let holds = |(s, first): &(SegmentIndex, u64)| frame < first + u64::from(self.scan.finished[s].items);
        self.numbered().find(holds)
    }

    fn anchor_before(&self, frame: u64) -> Option<Anchor> {
        let ends = self.numbered().map(|(s, first)| (first, &self.scan.finished[&s]));
        let anchors = ends.map(|(first, h)| Anchor {
            index: first + u64::from(h.items) - 1,
            pts: h.last_pts,
            hash: h.last_hash.0,
        });
        anchors.take_while(|anchor| anchor.index < frame).last()
    }

    /// Writes one segment as a file of its own.
    fn write(&self, segment: SegmentIndex, staged: &Path) -> Result<(), ServiceError> {
        let blob = Arc::new(Blob::open(&Location::parse(&self.input).map_err(failed)?).map_err(failed)?);
        let loaded = self.segments.load(segment).map_err(failed)?;
        let mut one = std::iter::once(EncodedSegment::from_bytes(&loaded.payload));
        let request = JoinRequest {
            blob: &blob,
            source: &self.plan.source,
            settings: &self.plan.encoder,
            segments: &mut one,
            staged,
            cancel: &CancelToken::new(),
        };
        join(request).map(|_| ()).map_err(failed)
    }
}

/// Scales a picture down and codes it.
fn jpeg(picture: &Picture, width: Option<u32>) -> Result<Jpeg, ServiceError> {
    let mut planes = RgbPlanes::default();
    to_rgb(picture, &mut planes).map_err(failed)?;
    let [red, green, blue] = &planes.planes;
    let code = |v: &f32| v.round().clamp(0.0, 255.0) as u8;
    let bytes = red.iter().zip(green).zip(blue).flat_map(|((r, g), b)| [code(r), code(g), code(b)]).collect();
    let (full, height) = (planes.width as u32, planes.height as u32);
    let mut image = RgbImage::from_raw(full, height, bytes).ok_or_else(|| failed("a picture has an odd size"))?;
    let width = width.unwrap_or(full).clamp(1, full.clamp(1, WIDTH_MAX));
    if width < full {
        let scaled = (u64::from(height) * u64::from(width) / u64::from(full)).max(1) as u32;
        image = image::imageops::thumbnail(&image, width, scaled);
    }
    let mut coded = Vec::new();
    JpegEncoder::new_with_quality(&mut coded, QUALITY)
        .encode(&image, image.width(), image.height(), ExtendedColorType::Rgb8)
        .map_err(failed)?;
    Ok(Jpeg { bytes: coded, width: image.width(), height: image.height() })
}
