//! The zip archive around a PyTorch checkpoint: stored entries found by the central directory.

use super::reader::Reader;
use super::refused;
use crate::ModelError;
use std::collections::HashMap;

/// The most entries of an archive; a checkpoint has one a tensor and a few more.
const ENTRIES_MAX: usize = 65_535;
/// Length of the end record without its comment.
const END_BYTES: usize = 22;
const END_MARK: [u8; 4] = *b"PK\x05\x06";
const ENTRY_MARK: u32 = u32::from_le_bytes(*b"PK\x01\x02");
const LOCAL_MARK: u32 = u32::from_le_bytes(*b"PK\x03\x04");
const WHAT: &str = "the zip archive";

/// Finds every entry's bytes by its name without the archive's own folder (`data.pkl`, `data/0`).
pub(super) fn entries(bytes: &[u8]) -> Result<HashMap<&str, &[u8]>, ModelError> {
    let (count, start) = end_record(bytes)?;
    let mut directory = Reader::new(bytes.get(start..).unwrap_or_default(), WHAT);
    let mut found = HashMap::new();
    for _ in 0..count {
        let (name, content) = entry(bytes, &mut directory)?;
        let name = name.split_once('/').map_or(name, |(_, inner)| inner);
        if found.insert(name, content).is_some() {
            return Err(refused(format!("{WHAT} holds {name} twice")));
        }
    }
    Ok(found)
}

/// Number of entries and place of the central directory.
fn end_record(bytes: &[u8]) -> Result<(usize, usize), ModelError> {
    // The record may be followed by a comment of at most 65,535 bytes, whose length its last two bytes say.
    let from = bytes.len().saturating_sub(END_BYTES + 65_535);
    let ends_here = |record: &[u8], place: usize| {
        let comment = usize::from(u16::from_le_bytes([record[END_BYTES - 2], record[END_BYTES - 1]]));
        record.starts_with(&END_MARK) && from + place + END_BYTES + comment == bytes.len()
    };
    let mut records = bytes[from..].windows(END_BYTES).enumerate().rev();
    let place = records.find(|(place, record)| ends_here(record, *place)).map(|(place, _)| place);
    let place = place.ok_or_else(|| refused(format!("{WHAT} has no directory: is the file truncated?")))?;
    let mut end = Reader::new(&bytes[from + place..], WHAT);
    end.take(10)?;
    let count = usize::from(end.u16()?);
    end.take(4)?;
    let start = end.u32()?;
    if count >= ENTRIES_MAX || start == u32::MAX {
        return Err(refused(format!("{WHAT} is a zip64 archive, which is not read; is it a style network?")));
    }
    Ok((count, start as usize))
}

fn entry<'a>(bytes: &'a [u8], directory: &mut Reader<'a>) -> Result<(&'a str, &'a [u8]), ModelError> {
    if directory.u32()? != ENTRY_MARK {
        return Err(refused(format!("{WHAT} has a damaged directory")));
    }
    directory.take(6)?;
    let method = directory.u16()?;
    directory.take(8)?;
    let (stored, whole) = (directory.u32()?, directory.u32()?);
    let lengths = [directory.u16()?, directory.u16()?, directory.u16()?];
    directory.take(8)?;
    let offset = directory.u32()? as usize;
    let name = directory.take(usize::from(lengths[0]))?;
    directory.take(usize::from(lengths[1]) + usize::from(lengths[2]))?;
    let name = std::str::from_utf8(name).map_err(|_| refused(format!("{WHAT} holds a name that is not UTF-8")))?;
    if method != 0 || stored != whole {
        return Err(refused(format!("{WHAT} holds {name} compressed; PyTorch stores its tensors as they are")));
    }
    let mut local = Reader::new(bytes.get(offset..).unwrap_or_default(), WHAT);
    if local.u32()? != LOCAL_MARK {
        return Err(refused(format!("{WHAT} has no entry where its directory says {name} is")));
    }
    local.take(22)?;
    let lengths = [local.u16()?, local.u16()?];
    local.take(usize::from(lengths[0]) + usize::from(lengths[1]))?;
    Ok((name, local.take(stored as usize)?))
}
