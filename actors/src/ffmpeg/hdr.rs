//! HDR metadata on a stream that is written.

use ffmpeg_sys_next as ff;

use super::AvError;
use crate::source_info::{HdrInfo, Rational};

/// Gives a stream HDR metadata as side data; the structures are spelled in bytes since the bindings lack them.
///
/// # Safety
/// The stream is live.
pub(super) unsafe fn add(stream: *mut ff::AVStream, hdr: &HdrInfo) -> Result<(), AvError> {
    if let Some(mastering) = &hdr.mastering {
        let unknown = [Rational::new(0, 1); 2];
        let mut parts: Vec<i32> = Vec::with_capacity(22);
        let mut push = |pair: [Rational; 2]| parts.extend(pair.into_iter().flat_map(|r| [r.num, r.den]));
        mastering.primaries.unwrap_or([unknown; 3]).into_iter().for_each(&mut push);
        push(mastering.white_point.unwrap_or(unknown));
        push(mastering.luminance.unwrap_or(unknown));
        parts.push(i32::from(mastering.primaries.is_some() && mastering.white_point.is_some()));
        parts.push(i32::from(mastering.luminance.is_some()));
        // SAFETY: AVMasteringDisplayMetadata is ten fractions of two ints and two ints, in this order.
        unsafe { add_side_data(stream, ff::AVPacketSideDataType::AV_PKT_DATA_MASTERING_DISPLAY_METADATA, &parts) }?;
    }
    if let Some(light) = hdr.content_light {
        let parts = [light.max_cll.cast_signed(), light.max_fall.cast_signed()];
        // SAFETY: AVContentLightMetadata is two ints, in this order.
        unsafe { add_side_data(stream, ff::AVPacketSideDataType::AV_PKT_DATA_CONTENT_LIGHT_LEVEL, &parts) }?;
    }
    Ok(())
}

/// # Safety
/// The stream is live, and the ints spell the structure that FFmpeg expects under this kind.
unsafe fn add_side_data(
    stream: *mut ff::AVStream,
    kind: ff::AVPacketSideDataType,
    ints: &[i32],
) -> Result<(), AvError> {
    let bytes: Vec<u8> = ints.iter().flat_map(|int| int.to_ne_bytes()).collect();
    // SAFETY: the allocation is checked and has the stated size.
    unsafe {
        let data = ff::av_stream_new_side_data(stream, kind, bytes.len());
        if data.is_null() {
            return Err(AvError::NO_MEMORY);
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
    }
    Ok(())
}
