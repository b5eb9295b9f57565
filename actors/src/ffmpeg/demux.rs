//! Containers opened over a blob, with a list of formats that may be opened and nothing else in reach.
//!
//! A demuxer here can read its blob and nothing more: no protocol is allowed, nested opens are refused, and formats that
//! name other files (playlists, concatenations, image sequences) are not on the list.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use ffmpeg_sys_next as ff;

use super::avio::BlobInput;
use super::packet::RawPacket;
use super::{AvError, Options, log, owned_text};
use crate::error::{ActorError, Result};
use crate::storage::Blob;

/// Demuxers that may be used, by FFmpeg's short names.
pub const FORMATS_ALLOWED: &str = "mov,matroska,mpegts,mpeg,mpegvideo,avi,flv,ogg,mxf,ivf,h264,hevc,obu,m4v,asf,nut,dv,gif,\
                                   yuv4mpegpipe";
/// Streams that a source may have.
pub const STREAMS_MAX: usize = 128;
/// Pixels that a picture may have.
pub const PICTURE_PIXELS_MAX: u64 = 1 << 26;
/// Longest side of a picture.
pub const PICTURE_SIDE_MAX: u32 = 16_384;
/// Bytes looked at to tell the container apart.
const FORMAT_PROBE_BYTES: u32 = 1 << 20;
/// Bytes and microseconds looked at to learn stream parameters; FFmpeg's own defaults, so that what follows decodes alike.
const STREAM_PROBE_BYTES: i64 = 5_000_000;
const STREAM_PROBE_MICROS: i64 = 0;

/// An opened container.
#[derive(Debug)]
pub struct Demuxer {
    context: NonNull<ff::AVFormatContext>,
    // Declared after the context: it must be dropped later.
    input: BlobInput,
    shown: String,
}

// SAFETY: the context is only reached through this owner, and FFmpeg binds demuxers to no thread.
unsafe impl Send for Demuxer {}

impl Demuxer {
    /// Opens a container and learns its streams' parameters. Blocks on reads of the blob.
    ///
    /// # Errors
    /// The blob's own errors; `InputRefused` for formats outside [`FORMATS_ALLOWED`] and for too many streams or too
    /// large pictures; `InputUnreadable` where nothing is recognised or the container is cut short.
    pub fn open(blob: &Arc<Blob>) -> Result<Self> {
        log::capture();
        let _ = log::take_last_error();
        let shown = blob.location().to_string();
        let mut input = BlobInput::new(blob.clone()).map_err(|e| out_of_memory(&shown, e))?;
        let format = recognise(&mut input, &shown)?;
        let mut demuxer = open_as(format, input, shown)?;
        demuxer.check_limits()?;
        demuxer.learn_streams()?;
        demuxer.check_limits()?;
        Ok(demuxer)
    }

    /// Returns the pointer for calls of this folder.
    pub(crate) fn as_ptr(&self) -> *mut ff::AVFormatContext {
        self.context.as_ptr()
    }

    /// Returns a stream for calls of this folder, which must not outlive the demuxer; `None` past the last one.
    pub(crate) fn stream_ptr(&self, index: usize) -> Option<NonNull<ff::AVStream>> {
        if index >= self.streams() {
            return None;
        }
        // SAFETY: the context is live and its array holds nb_streams valid pointers.
        NonNull::new(unsafe { *(*self.as_ptr()).streams.add(index) })
    }

    /// Number of streams seen so far.
    #[must_use]
    pub fn streams(&self) -> usize {
        // SAFETY: the context is live.
        unsafe { (*self.as_ptr()).nb_streams as usize }
    }

    /// Where the source lies, for messages.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Reads the next packet of any stream that is not left out; `None` at the end. Blocks on reads of the blob.
    ///
    /// # Errors
    /// The blob's own errors, or `ReadError::Broken` where the container cannot be followed further.
    pub fn read(&mut self) -> Result<Option<RawPacket>, ReadError> {
        // Some demuxers ask to be called again; that many times in a row is not a file but an attack.
        const TRIES_MAX: usize = 10_000;
        for _ in 0..TRIES_MAX {
            let packet = RawPacket::empty();
            // SAFETY: both pointers are live.
            let code = unsafe { ff::av_read_frame(self.as_ptr(), packet.as_ptr()) };
            if let Some(error) = self.input.take_error() {
                return Err(ReadError::Blob(error));
            }
            match AvError::check(code) {
                Ok(_) => return Ok(Some(packet)),
                Err(AvError::EOF) => return Ok(None),
                Err(AvError::AGAIN) => {}
                Err(error) => return Err(ReadError::Broken(error)),
            }
        }
        Err(ReadError::Broken(AvError::INVALID_DATA))
    }

    /// Leaves out every stream but these: their packets are not read where the container allows it.
    pub fn keep_only(&mut self, kept: &[usize]) {
        for index in 0..self.streams() {
            if let Some(stream) = self.stream_ptr(index).filter(|_| !kept.contains(&index)) {
                // SAFETY: the stream is live and owned by the context.
                unsafe { (*stream.as_ptr()).discard = ff::AVDiscard::AVDISCARD_ALL };
            }
        }
    }

    /// Goes to a point at or before a timestamp of a stream from which decoding can begin, as far as the container knows.
    /// Blocks on reads of the blob.
    ///
    /// # Errors
    /// The blob's own errors, or `ReadError::Broken` where the container cannot be sought in.
    pub fn seek(&mut self, stream: usize, timestamp: i64) -> Result<(), ReadError> {
        // SAFETY: the context is live; an index out of range is an error of the call.
        let code =
            unsafe { ff::av_seek_frame(self.as_ptr(), stream as c_int, timestamp, ff::AVSEEK_FLAG_BACKWARD as c_int) };
        if let Some(error) = self.input.take_error() {
            return Err(ReadError::Blob(error));
        }
        AvError::check(code).map(|_| ()).map_err(ReadError::Broken)
    }

    fn check_limits(&self) -> Result<()> {
        let streams = self.streams();
        if streams > STREAMS_MAX {
            return Err(ActorError::InputRefused(format!(
                "input {} has {streams} streams, at most {STREAMS_MAX} are served; extract the ones you need",
                self.shown
            )));
        }
        for index in 0..streams {
            if let Some((width, height)) = self.video_size(index) {
                check_picture_size(&self.shown, width, height)?;
            }
        }
        Ok(())
    }

    /// Returns the size that a film stream claims; `None` for other streams and attached pictures.
    fn video_size(&self, index: usize) -> Option<(i64, i64)> {
        let stream = self.stream_ptr(index)?;
        // SAFETY: a stream's codecpar is never null; the type is read as an integer.
        unsafe {
            let parameters = (*stream.as_ptr()).codecpar;
            let kind = (&raw const (*parameters).codec_type).cast::<c_int>().read();
            let cover = (*stream.as_ptr()).disposition & ff::AV_DISPOSITION_ATTACHED_PIC != 0;
            (kind == ff::AVMediaType::AVMEDIA_TYPE_VIDEO as c_int && !cover)
                .then(|| (i64::from((*parameters).width), i64::from((*parameters).height)))
        }
    }

    fn learn_streams(&mut self) -> Result<()> {
        let mut options: Vec<*mut ff::AVDictionary> = (0..self.streams())
            .map(|_| {
                let mut one = Options::new();
                one.set("max_pixels", &PICTURE_PIXELS_MAX.to_string());
                one.into_raw()
            })
            .collect();
        let pointer = if options.is_empty() { std::ptr::null_mut() } else { options.as_mut_ptr() };
        // SAFETY: the array has one dictionary for each stream, as the call asks for.
        let code = unsafe { ff::avformat_find_stream_info(self.as_ptr(), pointer) };
        options.into_iter().for_each(|raw| drop(Options::from_raw(raw)));
        if let Some(error) = self.input.take_error() {
            return Err(error);
        }
        AvError::check(code).map(|_| ()).map_err(|e| unreadable(&self.shown, "cannot learn its streams", e))
    }
}

impl Drop for Demuxer {
    fn drop(&mut self) {
        let mut context = self.as_ptr();
        // SAFETY: this is the only owner; the input is freed after it, as a custom context asks for.
        unsafe { ff::avformat_close_input(&mut context) };
    }
}

/// Why reading or seeking stopped.
#[derive(Debug, Clone)]
pub enum ReadError {
    /// The blob failed.
    Blob(ActorError),
    /// The container makes no sense here.
    Broken(AvError),
}

/// Checks a picture's size against the limits; sides of 0 count as unknown.
///
/// # Errors
/// `InputRefused` where it is too large or negative.
pub fn check_picture_size(shown: &str, width: i64, height: i64) -> Result<()> {
    let sides = 0..=i64::from(PICTURE_SIDE_MAX);
    let pixels = width.saturating_mul(height);
    if sides.contains(&width) && sides.contains(&height) && pixels <= PICTURE_PIXELS_MAX as i64 {
        return Ok(());
    }
    Err(ActorError::InputRefused(format!(
        "input {shown} claims pictures of {width}x{height}, at most {PICTURE_SIDE_MAX} a side and {PICTURE_PIXELS_MAX} \
         pixels are served; scale it down first"
    )))
}

/// Tells the container apart by its content alone; names are not trusted.
fn recognise(input: &mut BlobInput, shown: &str) -> Result<*const ff::AVInputFormat> {
    let mut format: *const ff::AVInputFormat = std::ptr::null();
    // SAFETY: the input is live, the format is written by the call, the name is empty on purpose.
    let code = unsafe {
        ff::av_probe_input_buffer2(
            input.as_ptr(),
            &mut format,
            c"".as_ptr(),
            std::ptr::null_mut::<c_void>(),
            0,
            FORMAT_PROBE_BYTES,
        )
    };
    if let Some(error) = input.take_error() {
        return Err(error);
    }
    if code < 0 || format.is_null() {
        return Err(ActorError::InputUnreadable(format!(
            "input {shown} is not a video file: no container was recognised in it; give a file such as mp4, mov, mkv or webm"
        )));
    }
    // SAFETY: a recognised format is a static descriptor with terminated names.
    let (names, title) = unsafe { (owned_text((*format).name), owned_text((*format).long_name)) };
    if !names.split(',').any(|name| FORMATS_ALLOWED.split(',').any(|allowed| allowed == name)) {
        return Err(ActorError::InputRefused(format!(
            "input {shown} holds {title} ({names}), which is not accepted as a video; give a file such as mp4, mov, mkv or webm"
        )));
    }
    Ok(format)
}

fn open_as(format: *const ff::AVInputFormat, mut input: BlobInput, shown: String) -> Result<Demuxer> {
    let mut options = Options::new();
    options.set("format_whitelist", FORMATS_ALLOWED);
    options.set("protocol_whitelist", "");
    options.set("probesize", &STREAM_PROBE_BYTES.to_string());
    options.set("analyzeduration", &STREAM_PROBE_MICROS.to_string());
    // One more than we accept, so that the excess is refused by us with a message.
    options.set("max_streams", &(STREAMS_MAX + 1).to_string());
    // SAFETY: the context is fresh; the input outlives it. On failure the open call frees the context but never a custom
    // input, and sets the pointer to null.
    let (code, context) = unsafe {
        let mut context = ff::avformat_alloc_context();
        if context.is_null() {
            return Err(out_of_memory(&shown, AvError::NO_MEMORY));
        }
        (*context).pb = input.as_ptr();
        (*context).flags |= ff::AVFMT_FLAG_CUSTOM_IO;
        (*context).io_open = Some(refuse_open);
        let code = ff::avformat_open_input(&mut context, c"".as_ptr(), format, options.as_mut_ptr());
        (code, context)
    };
    let opened = NonNull::new(context).filter(|_| code >= 0);
    match opened {
        Some(context) => Ok(Demuxer { context, input, shown }),
        None => Err(input.take_error().unwrap_or_else(|| unreadable(&shown, "cannot open it", AvError(code)))),
    }
}

unsafe extern "C" fn refuse_open(
    _context: *mut ff::AVFormatContext,
    _io: *mut *mut ff::AVIOContext,
    url: *const c_char,
    _flags: c_int,
    _options: *mut *mut ff::AVDictionary,
) -> c_int {
    // SAFETY: FFmpeg passes a terminated name.
    let url = unsafe { owned_text(url) };
    tracing::warn!(target: "ffmpeg", url, "the input names another file, which is not opened");
    -ff::EPERM
}

fn unreadable(shown: &str, what: &str, error: AvError) -> ActorError {
    let detail = log::take_last_error().map(|line| format!("; {line}")).unwrap_or_default();
    ActorError::InputUnreadable(format!(
        "input {shown}: {what}: {error}{detail}; the file is damaged or cut short, copy it again"
    ))
}

fn out_of_memory(shown: &str, error: AvError) -> ActorError {
    ActorError::Storage { message: format!("cannot open {shown}: {error}"), transient: true }
}
