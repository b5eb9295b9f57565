//! A scored frame as bytes: what a pack holds is exactly what the encoder would get.

use crate::task::Scored;
use restyle_models::pixels::{Picture, PixelFormat, Plane, Samples};
use serde::{Deserialize, Serialize};

/// First byte of a picture's bytes, and of a record's.
const PICTURE: u8 = b'P';
const RECORD: u8 = b'R';

/// Longest head that is read: a format and the sizes of its planes.
const HEAD_BYTES_MAX: usize = 4096;

#[derive(Serialize, Deserialize)]
struct PictureHead {
    format: PixelFormat,
    width: u32,
    height: u32,
    planes: Vec<(u32, u32, u8)>,
}

/// Writes what a scorer made of a frame: a tag, the length and JSON of its head, then samples little endian, plane by plane.
///
/// # Errors
/// When a head or record cannot be written as JSON, which no value of ours does.
pub fn to_bytes(scored: &Scored) -> Result<Vec<u8>, serde_json::Error> {
    match scored {
        Scored::Record(record) => Ok([&[RECORD][..], &serde_json::to_vec(record)?].concat()),
        Scored::Picture(picture) => {
            let head = PictureHead {
                format: picture.format,
                width: picture.width,
                height: picture.height,
                planes: picture.planes.iter().map(|p| (p.width, p.height, sample_bytes(&p.samples))).collect(),
            };
            let head = serde_json::to_vec(&head)?;
            let mut bytes = Vec::with_capacity(picture.byte_len() + head.len() + 5);
            bytes.push(PICTURE);
            // A head is some hundred bytes.
            bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&head);
            for plane in &picture.planes {
                match &plane.samples {
                    Samples::U8(samples) => bytes.extend_from_slice(samples),
                    Samples::U16(samples) => bytes.extend(samples.iter().flat_map(|s| s.to_le_bytes())),
                }
            }
            Ok(bytes)
        }
    }
}

/// Reads what [`to_bytes`] wrote; `None` for anything else. Integrity is the pack's business, sizes are checked here.
#[must_use]
pub fn from_bytes(bytes: &[u8]) -> Option<Scored> {
    let (tag, rest) = bytes.split_first()?;
    match *tag {
        RECORD => serde_json::from_slice(rest).ok().map(Scored::Record),
        PICTURE => picture(rest).map(Scored::Picture),
        _ => None,
    }
}

fn picture(bytes: &[u8]) -> Option<Picture> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let head: PictureHead = serde_json::from_slice(rest.get(..length.min(HEAD_BYTES_MAX))?).ok()?;
    let mut samples = rest.get(length..)?;
    let mut planes = Vec::with_capacity(head.planes.len().min(4));
    for (width, height, size) in head.planes {
        let count = (width as usize).checked_mul(height as usize)?;
        let (own, after) = samples.split_at_checked(count.checked_mul(usize::from(size))?)?;
        samples = after;
        let samples = match size {
            1 => Samples::U8(own.to_vec()),
            2 => Samples::U16(own.chunks_exact(2).map(|s| u16::from_le_bytes([s[0], s[1]])).collect()),
            _ => return None,
        };
        planes.push(Plane { width, height, samples });
    }
    let picture = Picture { format: head.format, width: head.width, height: head.height, planes };
    (samples.is_empty() && picture.validate().is_ok()).then_some(picture)
}

fn sample_bytes(samples: &Samples) -> u8 {
    match samples {
        Samples::U8(_) => 1,
        Samples::U16(_) => 2,
    }
}
