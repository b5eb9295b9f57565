//! From FFmpeg's frames to our planes, without loss and without a scaler.
//!
//! Every layout that the descriptor can describe is read the same way: planar, semi-planar, packed, either endianness,
//! any shift. Alpha is left behind, palettes are looked up, depths below 8 bits are widened to 8.

use restyle_models::pixels::{Picture, PixelFormat, Plane, Samples};

use super::pixfmt::{Component, PixFmtDescription};
use super::raw_frame::{PlaneRows, RawFrame};

/// Copies a frame into planes of `format`, which must be the canonical format of the frame's own.
///
/// # Errors
/// One line where the frame lacks a plane or is of a kind that cannot be read.
pub fn unpack(frame: &RawFrame, format: PixelFormat) -> Result<Picture, String> {
    let description = frame.pix_fmt().describe().ok_or_else(|| "a frame without a pixel format".to_owned())?;
    let (width, height) = (frame.width(), frame.height());
    let mut planes = Vec::with_capacity(format.layout.planes());
    for index in 0..format.layout.planes() {
        let (plane_width, plane_height) = format.plane_size(index, width, height);
        let mut samples = Samples::zeroed(format.bits, plane_width as usize * plane_height as usize);
        let reader = PlaneReader { frame, description: &description, index, width: plane_width as usize };
        reader.fill(&mut samples, format)?;
        planes.push(Plane { width: plane_width, height: plane_height, samples });
    }
    let picture = Picture { format, width, height, planes };
    debug_assert!(picture.validate().is_ok());
    Ok(picture)
}

struct PlaneReader<'a> {
    frame: &'a RawFrame,
    description: &'a PixFmtDescription,
    index: usize,
    width: usize,
}

impl PlaneReader<'_> {
    fn fill(&self, samples: &mut Samples, format: PixelFormat) -> Result<(), String> {
        if self.description.is_palette() {
            return self.fill_from_palette(samples);
        }
        if self.description.is_bitstream() {
            return self.fill_from_bits(samples);
        }
        let component = *self
            .description
            .components
            .get(self.index)
            .ok_or_else(|| format!("pixel format {} lacks component {}", self.description.name, self.index))?;
        let rows = self.rows(component.plane)?;
        let big_endian = self.description.is_big_endian();
        let native = big_endian == cfg!(target_endian = "big");
        let direct = component.offset == 0 && component.shift == 0 && component.depth == u32::from(format.bits);
        let (height, code_max) = (rows.len(), format.code_max());
        match samples {
            Samples::U8(out) => {
                for (y, out) in out.chunks_exact_mut(self.width).enumerate().take(height) {
                    let row = rows.row(y);
                    if direct && component.step == 1 {
                        out.copy_from_slice(&row[..self.width]);
                    } else if direct {
                        out.iter_mut().zip(row.iter().step_by(component.step)).for_each(|(o, i)| *o = *i);
                    } else {
                        read_narrow(row, component, big_endian, out);
                    }
                }
            }
            Samples::U16(out) => {
                for (y, out) in out.chunks_exact_mut(self.width).enumerate().take(height) {
                    let row = rows.row(y);
                    if direct && component.step == 2 && native {
                        // A ruined raw video may hold more than its bits; later tables are only as long as the bits say.
                        out.iter_mut()
                            .zip(row.chunks_exact(2))
                            .for_each(|(o, i)| *o = u16::from_ne_bytes([i[0], i[1]]) & code_max);
                    } else {
                        read_wide(row, component, big_endian, out);
                    }
                }
            }
        }
        Ok(())
    }

    fn rows(&self, plane: usize) -> Result<PlaneRows<'_>, String> {
        self.frame
            .plane(plane)
            .ok_or_else(|| format!("a frame of pixel format {} lacks plane {plane}", self.description.name))
    }

    fn fill_from_palette(&self, samples: &mut Samples) -> Result<(), String> {
        let palette = self.frame.palette().ok_or_else(|| "a paletted frame lacks its palette".to_owned())?;
        let shift = [16, 8, 0][self.index];
        let colours: Vec<u8> = palette
            .chunks_exact(4)
            .map(|word| (u32::from_ne_bytes([word[0], word[1], word[2], word[3]]) >> shift) as u8)
            .collect();
        let rows = self.rows(0)?;
        let Samples::U8(out) = samples else { return Err("a palette of more than 8 bits".to_owned()) };
        for (y, out) in out.chunks_exact_mut(self.width).enumerate() {
            out.iter_mut().zip(rows.row(y)).for_each(|(o, i)| *o = colours[usize::from(*i)]);
        }
        Ok(())
    }

    fn fill_from_bits(&self, samples: &mut Samples) -> Result<(), String> {
        // "monow": 0 is white; "monob": 0 is black. The first pixel is the highest bit.
        let invert = self.description.name == "monow";
        let rows = self.rows(0)?;
        let Samples::U8(out) = samples else { return Err("single bits as more than 8 bits".to_owned()) };
        for (y, out) in out.chunks_exact_mut(self.width).enumerate() {
            let row = rows.row(y);
            for (x, out) in out.iter_mut().enumerate() {
                let set = row[x / 8] >> (7 - x % 8) & 1 == 1;
                *out = if set == invert { 0 } else { 255 };
            }
        }
        Ok(())
    }
}

/// Reads values of at most 8 bits, widened to 8, from words of 8 or 16 bits.
fn read_narrow(row: &[u8], component: Component, big_endian: bool, out: &mut [u8]) {
    let max = (1u32 << component.depth) - 1;
    for (x, out) in out.iter_mut().enumerate() {
        let value = read_value(row, x, component, big_endian);
        *out = if component.depth == 8 { value as u8 } else { ((value * 255 + max / 2) / max) as u8 };
    }
}

/// Reads values of 9 to 16 bits.
fn read_wide(row: &[u8], component: Component, big_endian: bool, out: &mut [u16]) {
    for (x, out) in out.iter_mut().enumerate() {
        *out = read_value(row, x, component, big_endian) as u16;
    }
}

/// Reads one component of one pixel: FFmpeg places it in a word of 8, 16 or 32 bits, whichever holds shift and depth.
fn read_value(row: &[u8], x: usize, component: Component, big_endian: bool) -> u32 {
    let bits = component.shift + component.depth;
    // Descriptors of big-endian formats place a narrow value one byte early (offset -1 occurs), FFmpeg's reader adds it back.
    let narrow = isize::from(big_endian && bits <= 8);
    let at = ((x * component.step) as isize + component.offset + narrow) as usize;
    let word = if bits <= 8 {
        u32::from(row[at])
    } else if bits <= 16 {
        let pair = [row[at], row[at + 1]];
        u32::from(if big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) })
    } else {
        let four = [row[at], row[at + 1], row[at + 2], row[at + 3]];
        if big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
    };
    (word >> component.shift) & ((1u32 << component.depth) - 1)
}

#[cfg(test)]
mod tests {
    use std::ffi::c_int;

    use ffmpeg_sys_next as ff;

    use super::*;
    use crate::ffmpeg::AvError;
    use crate::ffmpeg::pixfmt::{ColourCodes, PixFmt};

    const WIDTH: u32 = 22;
    const HEIGHT: u32 = 6;

    /// A frame full of noise.
    fn noise(format: PixFmt) -> RawFrame {
        let frame = RawFrame::empty();
        let mut state = 0x9e37_79b9_u32;
        // SAFETY: the frame is fresh; its buffers are made before they are written, each over the size it was made with.
        unsafe {
            let raw = frame.as_ptr();
            (*raw).width = WIDTH as c_int;
            (*raw).height = HEIGHT as c_int;
            (*raw).format = format.0;
            AvError::check(ff::av_frame_get_buffer(raw, 0)).expect("memory");
            for buffer in (*raw).buf.iter().filter(|b| !b.is_null()) {
                let bytes = std::slice::from_raw_parts_mut((**buffer).data, (**buffer).size);
                for byte in bytes {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    *byte = (state >> 24) as u8;
                }
            }
        }
        frame
    }

    /// One row of one component as FFmpeg's own, slow reader sees it.
    fn reference(frame: &RawFrame, component: c_int, row: usize, width: usize) -> Vec<u16> {
        let mut out = vec![0_u16; width];
        // SAFETY: the frame is live and its descriptor static; the output has room for the width in 16-bit words.
        unsafe {
            let raw = frame.as_ptr();
            let description = ff::av_pix_fmt_desc_get(frame.pix_fmt().as_av().expect("known"));
            ff::av_read_image_line2(
                out.as_mut_ptr().cast(),
                (&raw mut (*raw).data).cast(),
                (&raw const (*raw).linesize).cast(),
                description,
                0,
                row as c_int,
                component,
                width as c_int,
                0,
                2,
            );
        }
        out
    }

    #[test]
    fn every_format_reads_as_ffmpeg_reads_it() {
        let mut checked = 0;
        for format in (0..ff::AVPixelFormat::AV_PIX_FMT_NB as c_int).map(PixFmt) {
            let Some(canonical) = format.canonical(ColourCodes::default()) else { continue };
            let description = format.describe().expect("described");
            if description.is_palette() || description.is_bitstream() {
                continue;
            }
            let frame = noise(format);
            let picture = unpack(&frame, canonical).unwrap_or_else(|e| panic!("{}: {e}", description.name));
            picture.validate().unwrap_or_else(|e| panic!("{}: {e}", description.name));
            for (index, plane) in picture.planes.iter().enumerate() {
                let width = plane.width as usize;
                let depth = description.components[index].depth;
                for row in 0..plane.height as usize {
                    let expected = reference(&frame, index as c_int, row, width);
                    let widen = |v: u16| if depth < 8 { v * 255 / ((1 << depth) - 1) } else { v };
                    let got: Vec<u16> = match &plane.samples {
                        Samples::U8(s) => s[row * width..][..width].iter().map(|v| u16::from(*v)).collect(),
                        Samples::U16(s) => s[row * width..][..width].to_vec(),
                    };
                    let expected: Vec<u16> = expected.into_iter().map(widen).collect();
                    let near = got.iter().zip(&expected).all(|(g, e)| g.abs_diff(*e) <= u16::from(depth < 8));
                    assert!(near, "{} plane {index} row {row}: {got:?} {expected:?}", description.name);
                }
            }
            checked += 1;
        }
        assert!(checked > 100, "{checked} formats");
    }
}
