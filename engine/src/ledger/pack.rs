//! Packs: finished items of a segment that is not finished yet, so that a death costs seconds and not
//! the whole segment.
//!
//! ```text
//! "RSTYPACK", head bytes (u32)            head: a sealed envelope that names plan, segment and writer
//! head
//! then for each item:
//!   "RSTYITEM", index (u32), zero (u32), pts (i64), source hash (16), payload bytes (u64), check (16)
//!   payload
//!   digest (32)
//! ```
//! Check and digest are blake3 keyed with the head's own digest, so an item is good only in the pack it
//! was written to. A pack is good as far as its items are: a log whose writer died ends in a cut item,
//! which is ignored, and an altered item is passed over while those after it are found again by their
//! heads. This module is pure; [`super::packs`] reads and writes.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::digest::{Digest, SourceHash};
use super::object::{ObjectKind, Rejection, SealedObject, seal};
use crate::item::{ItemIndex, SegmentIndex};

const MAGIC: &[u8; 8] = b"RSTYPACK";
const ITEM_MAGIC: &[u8; 8] = b"RSTYITEM";
const PREFIX_BYTES: usize = 12;
const ITEM_HEAD_BYTES: usize = 64;
const CHECKED_BYTES: usize = 48;
const DIGEST_BYTES: usize = 32;
/// A head is a few hundred bytes; what claims more is not read.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What a pack says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackHeader {
    /// The segment its items belong to.
    pub segment: SegmentIndex,
    /// Index of the first item put into it.
    pub first: ItemIndex,
    /// Who wrote it.
    pub writer: String,
}

/// One item's entry, without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedItem {
    /// Which item of the segment.
    pub index: ItemIndex,
    /// Its time stamp, in ticks of the source's time base.
    pub pts: i64,
    /// What it was made from: an item is adopted only for a source that hashes alike.
    pub source: SourceHash,
}

/// Key of a pack's checks: the digest of its head.
pub type PackSeal = [u8; 32];

/// A pack's head as bytes, and the key for its items.
pub fn pack_head(plan: &Digest, header: &PackHeader) -> Result<(Vec<u8>, PackSeal), serde_json::Error> {
    let head = seal(ObjectKind::Pack, plan, &serde_json::to_vec(header)?, &[]);
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&head);
    Ok((bytes, *blake3::hash(&head).as_bytes()))
}

/// The bytes before and after an item's payload.
pub fn frame_item(pack: &PackSeal, item: &PackedItem, payload: &[u8]) -> ([u8; ITEM_HEAD_BYTES], [u8; DIGEST_BYTES]) {
    let mut head = [0; ITEM_HEAD_BYTES];
    head[..8].copy_from_slice(ITEM_MAGIC);
    head[8..12].copy_from_slice(&item.index.0.to_le_bytes());
    head[16..24].copy_from_slice(&item.pts.to_le_bytes());
    head[24..40].copy_from_slice(&item.source.0.to_le_bytes());
    head[40..48].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    let (checked, place) = head.split_at_mut(CHECKED_BYTES);
    place.copy_from_slice(&check(pack, checked));
    let digest = item_digest(pack, &head, payload);
    (head, digest)
}

/// Size in the pack of an item with a payload of this size.
pub fn framed_bytes(payload_bytes: u64) -> u64 {
    payload_bytes + (ITEM_HEAD_BYTES + DIGEST_BYTES) as u64
}

/// Where a good item lies in its pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedItem {
    /// The item.
    pub item: PackedItem,
    /// Its entry in the pack, head and digest included.
    pub place: Range<usize>,
}

/// A pack as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPack {
    /// What it says about itself.
    pub header: PackHeader,
    /// Key of its items.
    pub seal: PackSeal,
    /// Good items, in the order they were written.
    pub items: Vec<PlacedItem>,
    /// Bytes that belong to no good item: cut off by a death, or altered.
    pub bytes_lost: usize,
    /// Those of them that lie before a good item: no death cuts there, so they were altered.
    pub bytes_altered: usize,
}

/// Reads the good items of a pack, sealed or not.
///
/// # Errors
/// `Damaged` or `Foreign` where the head does not open for this plan; nothing of it is used then.
pub fn read_pack(bytes: &[u8], plan: &Digest) -> Result<ReadPack, Rejection> {
    let damaged = |what: &str| Rejection::Damaged(what.to_owned());
    let prefix = bytes.get(..PREFIX_BYTES).ok_or_else(|| damaged("it ends before its head"))?;
    if prefix[..8] != MAGIC[..] {
        return Err(damaged("it does not begin as a pack"));
    }
    let head_bytes = u32::from_le_bytes(array(&prefix[8..])) as usize;
    let head_end = PREFIX_BYTES + head_bytes.min(HEAD_BYTES_MAX);
    let head = bytes.get(PREFIX_BYTES..head_end).ok_or_else(|| damaged("it ends inside its head"))?;
    let object = SealedObject::open(head.to_vec(), ObjectKind::Pack, plan)?;
    let header = serde_json::from_slice(object.header())
        .map_err(|error| Rejection::Foreign(format!("pack header of another version: {error}")))?;
    let seal = *blake3::hash(head).as_bytes();
    let items = read_items(bytes, head_end, &seal);
    let bytes_used: usize = items.iter().map(|item| item.place.len()).sum();
    let good_end = items.last().map_or(head_end, |item| item.place.end);
    let (bytes_lost, bytes_altered) = (bytes.len() - head_end - bytes_used, good_end - head_end - bytes_used);
    Ok(ReadPack { header, seal, items, bytes_lost, bytes_altered })
}

/// The payload of an entry read alone, if it still is this item of this pack.
pub fn open_item<'a>(entry: &'a [u8], pack: &PackSeal, expected: &PackedItem) -> Option<&'a [u8]> {
    let (item, place) = item_at(entry, 0, pack)?;
    (item == *expected && place.len() == entry.len()).then(|| &entry[ITEM_HEAD_BYTES..entry.len() - DIGEST_BYTES])
}

fn read_items(bytes: &[u8], start: usize, seal: &PackSeal) -> Vec<PlacedItem> {
    let mut items = Vec::new();
    let mut at = start;
    while at < bytes.len() {
        match item_at(bytes, at, seal) {
            Some((item, place)) => {
                at = place.end;
                items.push(PlacedItem { item, place });
            }
            None => match next_head(bytes, at + 1, seal) {
                Some(next) => at = next,
                None => break,
            },
        }
    }
    items
}

/// The item whose entry begins here, if every byte of it is as it was written.
fn item_at(bytes: &[u8], at: usize, seal: &PackSeal) -> Option<(PackedItem, Range<usize>)> {
    let (item, payload_bytes) = head_at(bytes, at, seal)?;
    let payload_at = at + ITEM_HEAD_BYTES;
    let payload_end = payload_at.checked_add(payload_bytes)?;
    let end = payload_end.checked_add(DIGEST_BYTES)?;
    let digest = bytes.get(payload_end..end)?;
    let expected = item_digest(seal, &bytes[at..payload_at], &bytes[payload_at..payload_end]);
    (digest == expected).then_some((item, at..end))
}

fn head_at(bytes: &[u8], at: usize, seal: &PackSeal) -> Option<(PackedItem, usize)> {
    let head = bytes.get(at..at + ITEM_HEAD_BYTES)?;
    if head[..8] != ITEM_MAGIC[..] || head[CHECKED_BYTES..] != check(seal, &head[..CHECKED_BYTES]) {
        return None;
    }
    let item = PackedItem {
        index: ItemIndex(u32::from_le_bytes(array(&head[8..12]))),
        pts: i64::from_le_bytes(array(&head[16..24])),
        source: SourceHash(u128::from_le_bytes(array(&head[24..40]))),
    };
    Some((item, usize::try_from(u64::from_le_bytes(array(&head[40..48]))).ok()?))
}

/// The next place at or after `from` where an entry of this very pack begins.
fn next_head(bytes: &[u8], from: usize, seal: &PackSeal) -> Option<usize> {
    let last = bytes.len().checked_sub(ITEM_HEAD_BYTES)?;
    (from..=last).find(|at| bytes[*at] == ITEM_MAGIC[0] && head_at(bytes, *at, seal).is_some())
}

fn check(seal: &PackSeal, checked: &[u8]) -> [u8; 16] {
    array(&blake3::keyed_hash(seal, checked).as_bytes()[..16])
}

fn item_digest(seal: &PackSeal, head: &[u8], payload: &[u8]) -> [u8; DIGEST_BYTES] {
    *blake3::Hasher::new_keyed(seal).update(head).update(payload).finalize().as_bytes()
}

fn array<const BYTES: usize>(bytes: &[u8]) -> [u8; BYTES] {
    bytes.try_into().expect("the caller cut the slice to this size")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> PackHeader {
        PackHeader { segment: SegmentIndex(3), first: ItemIndex(5), writer: "w".to_owned() }
    }

    fn item(n: usize) -> PackedItem {
        PackedItem { index: ItemIndex(5 + n as u32), pts: n as i64 * 40 - 20, source: SourceHash(n as u128) }
    }

    fn pack(plan: &str, payloads: &[Vec<u8>]) -> Vec<u8> {
        let (mut bytes, seal) = pack_head(&Digest::of(plan.as_bytes()), &header()).unwrap();
        for (n, payload) in payloads.iter().enumerate() {
            let (head, digest) = frame_item(&seal, &item(n), payload);
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(payload);
            bytes.extend_from_slice(&digest);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Result<ReadPack, Rejection> {
        read_pack(bytes, &Digest::of(b"plan"))
    }

    #[test]
    fn a_pack_reads_back_and_each_item_opens_alone() {
        let payloads = [b"one".to_vec(), vec![], vec![7; 1000]];
        let bytes = pack("plan", &payloads);
        let pack = read(&bytes).unwrap();
        assert_eq!((pack.header.clone(), pack.bytes_lost), (header(), 0));
        for (n, placed) in pack.items.iter().enumerate() {
            assert_eq!(placed.item, item(n));
            assert_eq!(placed.place.len() as u64, framed_bytes(payloads[n].len() as u64));
            let entry = &bytes[placed.place.clone()];
            assert_eq!(open_item(entry, &pack.seal, &item(n)), Some(&payloads[n][..]));
            assert_eq!(open_item(entry, &pack.seal, &item(n + 1)), None);
            assert_eq!(open_item(entry, &[0; 32], &item(n)), None);
        }
    }

    #[test]
    fn a_pack_of_another_plan_is_foreign_and_its_items_are_worth_nothing_elsewhere() {
        let foreign = pack("other", &[b"one".to_vec()]);
        assert!(matches!(read(&foreign), Err(Rejection::Foreign(_))));
        let mut grafted = pack("plan", &[b"mine".to_vec()]);
        let start = pack("other", &[]).len();
        grafted.extend_from_slice(&foreign[start..]);
        assert_eq!(read(&grafted).unwrap().items.len(), 1);
    }

    #[test]
    fn every_cut_leaves_exactly_the_items_before_it() {
        let payloads = [vec![1; 10], vec![2; 20], vec![3; 5]];
        let bytes = pack("plan", &payloads);
        let ends: Vec<usize> = (0..=3).map(|n| pack("plan", &payloads[..n]).len()).collect();
        for cut in 0..bytes.len() {
            match read(&bytes[..cut]) {
                Err(rejection) => assert!(cut < ends[0] && matches!(rejection, Rejection::Damaged(_)), "{cut}"),
                Ok(pack) => {
                    let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
                    assert_eq!(pack.items.len(), whole, "{cut}");
                    assert_eq!(pack.bytes_lost, cut - ends[whole], "{cut}");
                }
            }
        }
    }

    proptest! {
        /// L11: whatever is altered, every item that is read is as it was written, and only those
        /// that were touched are lost.
        #[test]
        fn altered_items_are_lost_alone(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..6),
            places in proptest::collection::vec((any::<proptest::sample::Index>(), 1..=255_u8), 1..4),
        ) {
            let good = pack("plan", &payloads);
            let placed = read(&good).unwrap().items;
            let head_end = placed[0].place.start;
            let mut bytes = good.clone();
            for (place, change) in places {
                let place = head_end + place.index(bytes.len() - head_end);
                bytes[place] ^= change;
            }
            let pack = read(&bytes).unwrap();
            let untouched: Vec<_> =
                placed.into_iter().filter(|item| bytes[item.place.clone()] == good[item.place.clone()]).collect();
            prop_assert_eq!(pack.items, untouched);
        }
    }
}
