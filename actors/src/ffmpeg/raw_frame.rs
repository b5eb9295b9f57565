//! A decoded frame as FFmpeg holds it.

use std::ffi::c_int;
use std::ptr::{NonNull, addr_of};

use ffmpeg_sys_next as ff;

use restyle_models::pixels::Picture;

use super::AvError;
use super::fill::fill;
use super::pixfmt::{ColourCodes, PixFmt};
use crate::source_info::{ContentLight, HdrInfo, MasteringDisplay, Rational};

/// An owned AVFrame. The pixels may be shared with a decoder's reference pictures and are never written to.
#[derive(Debug)]
pub struct RawFrame(NonNull<ff::AVFrame>);

// SAFETY: an AVFrame has no thread affinity, its buffers are counted atomically, and this type is its only owner.
unsafe impl Send for RawFrame {}
// SAFETY: everything that takes it by shared reference only reads, and sharing it counts its buffers atomically.
unsafe impl Sync for RawFrame {}

impl RawFrame {
    /// Allocates an empty frame.
    ///
    /// # Panics
    /// When memory for the small header is gone.
    #[must_use]
    pub fn empty() -> Self {
        // SAFETY: plain allocation.
        Self(NonNull::new(unsafe { ff::av_frame_alloc() }).expect("memory for a frame header"))
    }

    /// Makes a frame of a picture, in its own planar format or in one that [`fill`] interleaves to.
    ///
    /// # Errors
    /// `NO_MEMORY` when allocation fails.
    pub(crate) fn of(picture: &Picture, format: PixFmt) -> Result<Self, AvError> {
        let frame = Self::empty();
        let raw = frame.as_ptr();
        // SAFETY: the frame is fresh and this is its only owner; once it has buffers it is writable.
        unsafe {
            (*raw).format = format.0;
            (*raw).width = picture.width as c_int;
            (*raw).height = picture.height as c_int;
            AvError::check(ff::av_frame_get_buffer(raw, 0))?;
            fill(raw, picture);
        }
        Ok(frame)
    }

    /// Makes another reference to the same pixels.
    ///
    /// # Errors
    /// `NO_MEMORY` when allocation fails.
    pub fn share(&self) -> Result<Self, AvError> {
        let copy = Self::empty();
        // SAFETY: the source is a live frame, the destination a fresh empty one.
        AvError::check(unsafe { ff::av_frame_ref(copy.as_ptr(), self.as_ptr()) })?;
        Ok(copy)
    }

    /// Returns the pointer for calls of this folder.
    pub(crate) fn as_ptr(&self) -> *mut ff::AVFrame {
        self.0.as_ptr()
    }

    fn get(&self) -> &ff::AVFrame {
        // SAFETY: the frame is live as long as self. Enum fields are never read through this reference.
        unsafe { self.0.as_ref() }
    }

    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.get().width.max(0) as u32
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.get().height.max(0) as u32
    }

    /// Pixel format.
    #[must_use]
    pub fn pix_fmt(&self) -> PixFmt {
        PixFmt(self.get().format)
    }

    /// The timestamp as the packet had it.
    #[must_use]
    pub fn pts(&self) -> Option<i64> {
        known(self.get().pts)
    }

    /// Sets the timestamp, for a filter.
    pub fn set_pts(&mut self, pts: i64) {
        // SAFETY: the frame is live and this is its only owner.
        unsafe { (*self.as_ptr()).pts = pts };
    }

    /// FFmpeg's best guess at the timestamp.
    #[must_use]
    pub fn best_effort_pts(&self) -> Option<i64> {
        known(self.get().best_effort_timestamp)
    }

    /// The decoding timestamp of the packet that let this frame out.
    #[must_use]
    pub fn packet_dts(&self) -> Option<i64> {
        known(self.get().pkt_dts)
    }

    /// How long it is shown in ticks, where the packet said so.
    #[must_use]
    pub fn duration(&self) -> Option<i64> {
        Some(self.get().pkt_duration).filter(|d| *d > 0)
    }

    /// Whether the decoder flagged the frame as corrupt.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        self.get().flags & ff::AV_FRAME_FLAG_CORRUPT != 0
    }

    /// What the decoder found wrong with it, as words; `None` where nothing.
    #[must_use]
    pub fn decode_errors(&self) -> Option<String> {
        let flags = self.get().decode_error_flags;
        let named = [
            (ff::FF_DECODE_ERROR_INVALID_BITSTREAM, "invalid bitstream"),
            (ff::FF_DECODE_ERROR_MISSING_REFERENCE, "missing reference"),
            (ff::FF_DECODE_ERROR_CONCEALMENT_ACTIVE, "concealed by the decoder"),
            (ff::FF_DECODE_ERROR_DECODE_SLICES, "undecodable slices"),
        ];
        let words: Vec<&str> = named.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, word)| *word).collect();
        if flags == 0 {
            None
        } else {
            Some(if words.is_empty() { "decode error".to_owned() } else { words.join(", ") })
        }
    }

    /// Whether it holds two fields of different times.
    #[must_use]
    pub fn is_interlaced(&self) -> bool {
        self.get().interlaced_frame != 0
    }

    /// Sample aspect ratio, where the frame says.
    #[must_use]
    pub fn sample_aspect_ratio(&self) -> Option<Rational> {
        let sar = self.get().sample_aspect_ratio;
        Some(Rational::new(sar.num, sar.den)).filter(|sar| sar.is_positive())
    }

    /// Colour tags of the frame.
    #[must_use]
    pub fn colour(&self) -> ColourCodes {
        let frame = self.as_ptr();
        // SAFETY: the frame is live; the fields are C enums of int size, read as integers since a file may hold any value.
        unsafe {
            ColourCodes {
                primaries: addr_of!((*frame).color_primaries).cast::<c_int>().read(),
                transfer: addr_of!((*frame).color_trc).cast::<c_int>().read(),
                matrix: addr_of!((*frame).colorspace).cast::<c_int>().read(),
                range: addr_of!((*frame).color_range).cast::<c_int>().read(),
                chroma_location: addr_of!((*frame).chroma_location).cast::<c_int>().read(),
            }
        }
    }

    /// Returns a plane's rows; `None` where the frame has no such plane.
    #[must_use]
    pub fn plane(&self, plane: usize) -> Option<PlaneRows<'_>> {
        let frame = self.get();
        let data = *frame.data.get(plane)?;
        let stride = *frame.linesize.get(plane)? as isize;
        let description = self.pix_fmt().describe()?;
        // SAFETY: a pure computation; negative results are errors.
        let bytes = unsafe { ff::av_image_get_linesize(self.pix_fmt().as_av()?, frame.width, plane as c_int) };
        let row_bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes > 0)?;
        if data.is_null() || stride.unsigned_abs() < row_bytes {
            return None;
        }
        let height = self.height() as usize;
        let chroma = (plane == 1 || plane == 2) && !description.is_rgb();
        let rows = if chroma { height.div_ceil(1 << description.chroma_shift_y) } else { height };
        Some(PlaneRows { data, stride, rows, row_bytes, frame: std::marker::PhantomData })
    }

    /// Returns the palette of a paletted frame: 256 words 0xAARRGGBB in native order.
    #[must_use]
    pub fn palette(&self) -> Option<&[u8]> {
        let data = self.get().data[1];
        if data.is_null() || !self.pix_fmt().describe()?.is_palette() {
            return None;
        }
        // SAFETY: paletted frames carry AVPALETTE_SIZE (1024) bytes in their second plane.
        Some(unsafe { std::slice::from_raw_parts(data, 1024) })
    }

    /// Reads HDR metadata that the frame carries.
    #[must_use]
    pub fn hdr(&self) -> HdrInfo {
        use ff::AVFrameSideDataType::{AV_FRAME_DATA_CONTENT_LIGHT_LEVEL, AV_FRAME_DATA_MASTERING_DISPLAY_METADATA};
        let mut hdr = HdrInfo::default();
        if let Some(data) = self.side_data(AV_FRAME_DATA_MASTERING_DISPLAY_METADATA) {
            hdr.mastering = mastering_display(data);
        }
        if let Some(data) = self.side_data(AV_FRAME_DATA_CONTENT_LIGHT_LEVEL) {
            hdr.content_light = content_light(data);
        }
        hdr
    }

    /// Whether the frame carries dynamic metadata of the Dolby Vision kind.
    #[must_use]
    pub fn has_dolby_vision(&self) -> bool {
        use ff::AVFrameSideDataType::{AV_FRAME_DATA_DOVI_METADATA, AV_FRAME_DATA_DOVI_RPU_BUFFER};
        self.side_data(AV_FRAME_DATA_DOVI_RPU_BUFFER).is_some() || self.side_data(AV_FRAME_DATA_DOVI_METADATA).is_some()
    }

    /// Names what the frame carries beside its pixels that no encoder here passes on.
    #[must_use]
    pub fn unserved_side_data(&self) -> Vec<&'static str> {
        use ff::AVFrameSideDataType::{AV_FRAME_DATA_A53_CC, AV_FRAME_DATA_DYNAMIC_HDR_PLUS};
        let named = [
            (AV_FRAME_DATA_DYNAMIC_HDR_PLUS, "dynamic hdr10+ metadata"),
            (AV_FRAME_DATA_A53_CC, "closed captions inside the video stream"),
        ];
        named.into_iter().filter(|(kind, _)| self.side_data(*kind).is_some()).map(|(_, name)| name).collect()
    }

    fn side_data(&self, kind: ff::AVFrameSideDataType) -> Option<&[u8]> {
        // SAFETY: the frame is live; the result is null or side data owned by it.
        let data = unsafe { ff::av_frame_get_side_data(self.as_ptr(), kind) };
        if data.is_null() {
            return None;
        }
        // SAFETY: side data is a buffer of `size` bytes that lives as long as the frame.
        let (bytes, size) = unsafe { ((*data).data, (*data).size) };
        // SAFETY: as above; an empty one may be null.
        (!bytes.is_null()).then(|| unsafe { std::slice::from_raw_parts(bytes, size) })
    }
}

/// The rows of one plane of a frame.
#[derive(Debug, Clone, Copy)]
pub struct PlaneRows<'a> {
    data: *const u8,
    stride: isize,
    rows: usize,
    row_bytes: usize,
    frame: std::marker::PhantomData<&'a RawFrame>,
}

impl<'a> PlaneRows<'a> {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Returns the bytes of one row, without padding.
    ///
    /// # Panics
    /// When `row` is not below [`PlaneRows::len`].
    #[must_use]
    pub fn row(&self, row: usize) -> &'a [u8] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: FFmpeg allocates `rows` rows of at least `row_bytes` bytes for the frame's size and format, a stride
        // apart (a negative one points backwards from the last row in memory), and they live as long as the frame.
        unsafe { std::slice::from_raw_parts(self.data.offset(row as isize * self.stride), self.row_bytes) }
    }
}

impl Drop for RawFrame {
    fn drop(&mut self) {
        let mut frame = self.as_ptr();
        // SAFETY: this is the only owner.
        unsafe { ff::av_frame_free(&mut frame) };
    }
}

/// Maps FFmpeg's "no timestamp" to `None`.
pub(crate) fn known(timestamp: i64) -> Option<i64> {
    (timestamp != ff::AV_NOPTS_VALUE).then_some(timestamp)
}

/// Reads AVMasteringDisplayMetadata, which the bindings do not name: fractions of the primaries (3 x 2), the white point
/// (2) and both luminances, then whether primaries and luminances are given.
pub(crate) fn mastering_display(data: &[u8]) -> Option<MasteringDisplay> {
    let word = |index: usize| native_word(data, index);
    let fraction = |index: usize| Some(Rational::new(word(2 * index)?, word(2 * index + 1)?));
    let point = |index: usize| Some([fraction(index)?, fraction(index + 1)?]);
    let (has_primaries, has_luminance) = (word(20)? != 0, word(21)? != 0);
    let primaries = [point(0)?, point(2)?, point(4)?];
    let (white_point, luminance) = (point(6)?, point(8)?);
    Some(MasteringDisplay {
        primaries: has_primaries.then_some(primaries),
        white_point: has_primaries.then_some(white_point),
        luminance: has_luminance.then_some(luminance),
    })
}

/// Reads AVContentLightMetadata: two unsigned words.
pub(crate) fn content_light(data: &[u8]) -> Option<ContentLight> {
    Some(ContentLight { max_cll: native_word(data, 0)? as u32, max_fall: native_word(data, 1)? as u32 })
}

/// Returns the 32-bit word at an index, in native order.
pub(crate) fn native_word(data: &[u8], index: usize) -> Option<i32> {
    let bytes = data.get(index * 4..index * 4 + 4)?;
    Some(i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}
