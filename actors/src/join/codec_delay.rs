//! Declares audio priming in a finished Matroska file.
//!
//! Matroska has no negative times: sound that begins before time zero is written shifted, and `CodecDelay` says by how
//! much. FFmpeg's muxer writes that element for Opus only. For other codecs the muxer is given a track name with a
//! filler behind it, and here the filler's bytes are turned into the element, in place, with nothing else moved.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What stands behind a track's name until the delay takes its place.
const FILLER: &str = "\u{1}codec delay goes here.........\u{1}";
/// Bytes at the beginning of a file in which its track list lies: names and codec headers, no attachments.
const HEAD_BYTES_MAX: u64 = 4 << 20;

const ID_SEGMENT: u32 = 0x1853_8067;
const ID_TRACKS: u32 = 0x1654_AE6B;
const ID_TRACK_NAME: [u8; 2] = [0x53, 0x6E];
const ID_CODEC_DELAY: [u8; 2] = [0x56, 0xAA];
const ID_VOID: u8 = 0xEC;
const ID_CRC: u8 = 0xBF;

/// Returns the track name to give to the muxer for a track that will get a delay.
pub(super) fn named(title: Option<&str>) -> String {
    format!("{}{FILLER}", title.unwrap_or_default())
}

/// Writes delays, in nanoseconds, over the fillers of a finished file in track order.
pub(super) fn declare(path: &Path, delays_nanos: &[u64]) -> io::Result<()> {
    if delays_nanos.is_empty() {
        return Ok(());
    }
    let file = File::options().read(true).write(true).open(path)?;
    let mut head = vec![0; file.metadata()?.len().min(HEAD_BYTES_MAX) as usize];
    file.read_exact_at(&mut head, 0)?;
    let changed = patch(&mut head, delays_nanos).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "the joined file's track list is not as it was written")
    })?;
    file.write_all_at(&head[changed.clone()], changed.start as u64)
}

/// Patches the head of a file and returns the range that changed; `None` where a filler or the track list is missing.
fn patch(head: &mut [u8], delays_nanos: &[u64]) -> Option<std::ops::Range<usize>> {
    let tracks = find_tracks(head)?;
    let list = &mut head[tracks.clone()];
    let mut from = 0;
    for delay in delays_nanos {
        let at = from + find(&list[from..], FILLER.as_bytes())?;
        from = at + FILLER.len();
        replace(list, at, *delay)?;
    }
    if list.first() == Some(&ID_CRC) && list.len() > 6 {
        let sum = crc32(&list[6..]);
        list[2..6].copy_from_slice(&sum.to_le_bytes());
    }
    Some(tracks)
}

/// Rewrites the name element that ends in the filler at `at` as name, delay and void.
fn replace(list: &mut [u8], at: usize, delay_nanos: u64) -> Option<()> {
    let end = at + FILLER.len();
    // The name's element begins where its id, its length and the bytes up to the filler's end fit together.
    let start = (0..at).rev().take(1 << 16).find(|start| {
        list[*start..].starts_with(&ID_TRACK_NAME)
            && varint(&list[start + 2..]).is_some_and(|(size, bytes)| start + 2 + bytes + size as usize == end)
    })?;
    let (_, size_bytes) = varint(&list[start + 2..])?;
    let title = list[start + 2 + size_bytes..at].to_vec();
    let mut element = Vec::with_capacity(end - start);
    if !title.is_empty() {
        element.extend(ID_TRACK_NAME);
        element.extend(size_bytes_of(title.len(), size_bytes));
        element.extend(&title);
    }
    element.extend(ID_CODEC_DELAY);
    element.push(0x88);
    element.extend(delay_nanos.to_be_bytes());
    let void = (end - start).checked_sub(element.len() + 2).filter(|void| *void < 127)?;
    element.extend([ID_VOID, 0x80 | void as u8]);
    element.resize(end - start, 0);
    list[start..end].copy_from_slice(&element);
    Some(())
}

/// Spells a length in exactly `bytes` bytes.
fn size_bytes_of(size: usize, bytes: usize) -> Vec<u8> {
    let spelled = size as u64 | 1 << (7 * bytes);
    spelled.to_be_bytes()[8 - bytes..].to_vec()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Returns where the content of the track list lies.
fn find_tracks(head: &[u8]) -> Option<std::ops::Range<usize>> {
    let mut at = 0;
    while at < head.len() {
        let id_bytes = head[at].leading_zeros() as usize + 1;
        let id = head.get(at..at + id_bytes).filter(|_| id_bytes <= 4)?;
        let id = id.iter().fold(0, |value, byte| value << 8 | u32::from(*byte));
        let (size, size_bytes) = varint(&head[at + id_bytes..])?;
        let content = at + id_bytes + size_bytes;
        at = match id {
            ID_SEGMENT => content,
            ID_TRACKS => {
                let end = content.checked_add(size as usize).filter(|end| *end <= head.len())?;
                return Some(content..end);
            }
            _ => content.checked_add(size as usize)?,
        };
    }
    None
}

/// Reads an EBML length: value and how many bytes it takes.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let length = bytes.first()?.leading_zeros() as usize + 1;
    let bytes = bytes.get(..length).filter(|_| length <= 8)?;
    let value = bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    Some((value & !(1 << (7 * length)), length))
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(id: &[u8], content: &[u8]) -> Vec<u8> {
        let mut bytes = id.to_vec();
        bytes.extend(size_bytes_of(content.len(), if content.len() < 127 { 1 } else { 2 }));
        bytes.extend(content);
        bytes
    }

    fn file(title: &str) -> Vec<u8> {
        let name = element(&ID_TRACK_NAME, named(Some(title)).as_bytes());
        let entry = element(&[0xAE], &[element(&[0xD7], &[1]), name, element(&[0x86], b"A_AAC")].concat());
        let tracks = element(&ID_TRACKS.to_be_bytes(), &[element(&[ID_CRC], &[0; 4]), entry].concat());
        let mut bytes = element(&[0x1A, 0x45, 0xDF, 0xA3], b"head");
        bytes.extend(element(&ID_SEGMENT.to_be_bytes(), &[element(&[ID_VOID], &[0; 9]), tracks].concat()));
        bytes
    }

    #[test]
    fn check_sum_is_the_common_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    fn check(title: &str) {
        let before = file(title);
        let mut after = before.clone();
        patch(&mut after, &[21_333_333]).unwrap();
        assert_eq!(after.len(), before.len());
        assert!(find(&after, FILLER.as_bytes()).is_none());
        let delay = element(&ID_CODEC_DELAY, &21_333_333u64.to_be_bytes());
        assert!(find(&after, &delay).is_some());
        assert!(find(&after, b"A_AAC").is_some());
        assert_eq!(find(&after, &ID_TRACK_NAME).is_some(), !title.is_empty());
        let tracks = find_tracks(&after).unwrap();
        let list = &after[tracks];
        assert_eq!(list[2..6], crc32(&list[6..]).to_le_bytes());
    }

    #[test]
    fn filler_becomes_the_delay() {
        check("Director's comments");
        check("");
        check(&"x".repeat(120));
    }

    #[test]
    fn strange_files_are_left_alone() {
        assert_eq!(patch(&mut file("x"), &[1, 2]), None);
        assert_eq!(patch(&mut [], &[1]), None);
        assert_eq!(patch(&mut [0; 64], &[1]), None);
        assert_eq!(patch(&mut file("x")[..40], &[1]), None);
    }
}
