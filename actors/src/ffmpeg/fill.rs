//! From our planes to FFmpeg's frames: planar as they are, or interleaved where an encoder knows no planar format.

use ffmpeg_sys_next as ff;
use restyle_models::pixels::{Layout, Picture, Plane, Samples};

use super::pixfmt::PixFmt;

/// Bits below the value in a word of P010.
const P010_SHIFT: u32 = 6;

/// Copies a picture into a frame: planar of the picture's own format, `bgr0` for RGB of 8 bits, or `p010le` for 4:2:0 of 10 bits.
///
/// # Safety
/// The frame is live, writable, of the picture's size, and of one of these formats.
pub(super) unsafe fn fill(frame: *mut ff::AVFrame, picture: &Picture) {
    // SAFETY: the caller's promise; each of the three writes what FFmpeg allocated for the format.
    unsafe {
        match PixFmt((*frame).format).name().as_str() {
            "bgr0" => fill_packed(frame, picture),
            "p010le" => fill_p010(frame, picture),
            _ => fill_planar(frame, picture),
        }
    }
}

/// # Safety
/// As [`fill`], for a planar frame.
unsafe fn fill_planar(frame: *mut ff::AVFrame, picture: &Picture) {
    // FFmpeg keeps planar RGB in the order green, blue, red.
    let order: [usize; 3] = if picture.format.layout == Layout::Rgb { [1, 2, 0] } else { [0, 1, 2] };
    for (target, source) in order.into_iter().take(picture.planes.len()).enumerate() {
        let plane = &picture.planes[source];
        let (width, height) = (plane.width as usize, plane.height as usize);
        for row in 0..height {
            // SAFETY: FFmpeg gave every plane `height` rows of `linesize` bytes, chroma rounded up as ours is, and linesize is
            // at least the row's bytes; the frame is writable.
            unsafe {
                let out = row_of(frame, target, row);
                match &plane.samples {
                    Samples::U8(samples) => {
                        std::ptr::copy_nonoverlapping(samples[row * width..][..width].as_ptr(), out, width);
                    }
                    Samples::U16(samples) => {
                        let line = &samples[row * width..][..width];
                        std::ptr::copy_nonoverlapping(line.as_ptr(), out.cast::<u16>(), width);
                    }
                }
            }
        }
    }
}

/// Interleaves red, green and blue planes of 8 bits as blue, green, red and a byte of nothing.
///
/// # Safety
/// As [`fill`], for a frame of `bgr0`.
unsafe fn fill_packed(frame: *mut ff::AVFrame, picture: &Picture) {
    let planes: Vec<&[u8]> = picture
        .planes
        .iter()
        .map(|plane| match &plane.samples {
            Samples::U8(samples) => samples.as_slice(),
            Samples::U16(_) => &[],
        })
        .collect();
    let (width, height) = (picture.width as usize, picture.height as usize);
    for row in 0..height {
        // SAFETY: the frame is writable and packed: its one plane has `height` rows of at least `width` times 4 bytes.
        let line = unsafe { std::slice::from_raw_parts_mut(row_of(frame, 0, row), width * 4) };
        for (x, pixel) in line.chunks_exact_mut(4).enumerate() {
            let at = row * width + x;
            pixel.copy_from_slice(&[planes[2][at], planes[1][at], planes[0][at], 0]);
        }
    }
}

/// Luma in one plane, both chroma planes interleaved in the other, the 10 bits at the top of each word.
///
/// # Safety
/// As [`fill`], for a frame of `p010le`.
unsafe fn fill_p010(frame: *mut ff::AVFrame, picture: &Picture) {
    let sources: [&[usize]; 2] = [&[0], &[1, 2]];
    for (target, sources) in sources.into_iter().enumerate() {
        let Plane { width, height, .. } = picture.planes[sources[0]];
        let (width, height) = (width as usize, height as usize);
        for row in 0..height {
            let words = width * sources.len();
            // SAFETY: the plane has `height` rows of at least so many words, and FFmpeg aligns rows to more than a word.
            let line = unsafe { std::slice::from_raw_parts_mut(row_of(frame, target, row).cast::<u16>(), words) };
            for (lane, source) in sources.iter().enumerate() {
                let Samples::U16(samples) = &picture.planes[*source].samples else { continue };
                let values = &samples[row * width..][..width];
                line.iter_mut().skip(lane).step_by(sources.len()).zip(values).for_each(|(word, value)| {
                    *word = (value << P010_SHIFT).to_le();
                });
            }
        }
    }
}

/// # Safety
/// The frame is live and has that row in that plane.
unsafe fn row_of(frame: *mut ff::AVFrame, plane: usize, row: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { (*frame).data[plane].offset((*frame).linesize[plane] as isize * row as isize) }
}

#[cfg(test)]
mod tests {
    use restyle_models::pixels::PixelFormat;

    use super::*;
    use crate::ffmpeg::raw_frame::RawFrame;
    use crate::ffmpeg::unpack::unpack;

    /// What a frame of that pixel format gives back of a picture.
    fn check(pix_fmt: &str, format: PixelFormat) {
        let mut picture = Picture::zeroed(format, 38, 22).unwrap();
        for (seed, plane) in picture.planes.iter_mut().enumerate() {
            let code = |at: usize| (at * 37 + seed * 101) % (usize::from(format.code_max()) + 1);
            match &mut plane.samples {
                Samples::U8(samples) => samples.iter_mut().enumerate().for_each(|(at, v)| *v = code(at) as u8),
                Samples::U16(samples) => samples.iter_mut().enumerate().for_each(|(at, v)| *v = code(at) as u16),
            }
        }
        let frame = RawFrame::of(&picture, PixFmt::by_name(pix_fmt).unwrap()).unwrap();
        assert_eq!((frame.width(), frame.height(), frame.pix_fmt().name().as_str()), (38, 22, pix_fmt));
        assert!(unpack(&frame, format).unwrap() == picture, "{pix_fmt} gives back what was put in");
    }

    #[test]
    fn frames_give_back_what_was_put_in() {
        check("yuv420p", PixelFormat::YUV420P8);
        check("yuv420p10le", PixelFormat { bits: 10, ..PixelFormat::YUV420P8 });
        check("p010le", PixelFormat { bits: 10, ..PixelFormat::YUV420P8 });
        check("gbrp", PixelFormat::RGB8);
        check("bgr0", PixelFormat::RGB8);
    }
}
