//! The sealed envelope around a binary object: nothing read from a store is used unless it opens.
//!
//! ```text
//! offset size
//!      0    8 magic "RSTYLOBJ"
//!      8    2 version, little endian
//!     10    2 kind
//!     12    4 header bytes
//!     16    8 payload bytes
//!     24   32 digest of the plan the object belongs to
//!     56    . header, then payload
//!    end   32 blake3 of everything before
//! ```
//! Integrity is judged first, belonging second, so that a flipped bit in the plan digest reads as
//! damage and not as a stranger.

use std::ops::Range;

use super::digest::Digest;

const MAGIC: [u8; 8] = *b"RSTYLOBJ";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 56;
const SEAL_BYTES: usize = 32;

/// What an envelope holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum ObjectKind {
    /// A finished segment.
    Segment = 1,
    /// The head of a pack of finished items.
    Pack = 2,
}

/// Why stored bytes are not used. Neither is an error of the store: the work is done again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Cut short, altered, or not an object at all.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Whole, but of another job, plan, place or version.
    #[error("foreign: {0}")]
    Foreign(String),
}

/// Puts header and payload into a sealed envelope.
///
/// # Panics
/// If the header has 4 GiB or more, which no writer here can make.
pub fn seal(kind: ObjectKind, plan: &Digest, header: &[u8], payload: &[u8]) -> Vec<u8> {
    let header_bytes = u32::try_from(header.len()).expect("a header is far below 4 GiB");
    let mut bytes = Vec::with_capacity(HEAD_BYTES + header.len() + payload.len() + SEAL_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(kind as u16).to_le_bytes());
    bytes.extend_from_slice(&header_bytes.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(plan.as_bytes());
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(payload);
    let seal = blake3::hash(&bytes);
    bytes.extend_from_slice(seal.as_bytes());
    bytes
}

/// An envelope whose seal held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedObject {
    bytes: Vec<u8>,
    header: Range<usize>,
    payload: Range<usize>,
}

impl SealedObject {
    /// Opens stored bytes as an object of this kind and plan.
    ///
    /// # Errors
    /// `Damaged` when they are not exactly what some writer sealed, `Foreign` when they are but
    /// belong elsewhere.
    pub fn open(bytes: Vec<u8>, kind: ObjectKind, plan: &Digest) -> Result<Self, Rejection> {
        let damaged = |what: String| Err(Rejection::Damaged(what));
        let foreign = |what: String| Err(Rejection::Foreign(what));
        if bytes.len() < HEAD_BYTES + SEAL_BYTES {
            return damaged(format!("{} bytes are less than an empty envelope", bytes.len()));
        }
        if bytes[..8] != MAGIC {
            return damaged("it does not begin as an envelope".to_owned());
        }
        let sealed = bytes.len() - SEAL_BYTES;
        if blake3::hash(&bytes[..sealed]).as_bytes()[..] != bytes[sealed..] {
            return damaged(format!("the seal over {sealed} bytes does not hold"));
        }
        let version = u16::from_le_bytes(field(&bytes, 8));
        if version != VERSION {
            return foreign(format!("envelope version {version}, this program writes {VERSION}"));
        }
        let header = HEAD_BYTES..HEAD_BYTES.saturating_add(u32::from_le_bytes(field(&bytes, 12)) as usize);
        let payload_bytes = usize::try_from(u64::from_le_bytes(field(&bytes, 16))).unwrap_or(usize::MAX);
        let payload = header.end..header.end.saturating_add(payload_bytes);
        if payload.end != sealed {
            return damaged(format!("lengths add up to {}, the object has {sealed} bytes", payload.end));
        }
        let found_kind = u16::from_le_bytes(field(&bytes, 10));
        if found_kind != kind as u16 {
            return foreign(format!("object of kind {found_kind}, expected {}", kind as u16));
        }
        if bytes[24..56] != plan.as_bytes()[..] {
            return foreign(format!("plan {}, expected {plan}", Digest::from_bytes(field(&bytes, 24))));
        }
        Ok(Self { bytes, header, payload })
    }

    /// The header's bytes.
    pub fn header(&self) -> &[u8] {
        &self.bytes[self.header.clone()]
    }

    /// The payload's bytes.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.payload.clone()]
    }

    /// The payload alone, without another allocation.
    pub fn into_payload(mut self) -> Vec<u8> {
        self.bytes.truncate(self.payload.end);
        self.bytes.drain(..self.payload.start);
        self.bytes
    }
}

fn field<const BYTES: usize>(bytes: &[u8], offset: usize) -> [u8; BYTES] {
    let mut field = [0; BYTES];
    field.copy_from_slice(&bytes[offset..offset + BYTES]);
    field
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    #[test]
    fn an_envelope_opens_to_what_was_sealed() {
        let bytes = seal(ObjectKind::Segment, &plan("a"), b"head", b"payload");
        let object = SealedObject::open(bytes, ObjectKind::Segment, &plan("a")).unwrap();
        assert_eq!(object.header(), b"head");
        assert_eq!(object.payload(), b"payload");
        assert_eq!(object.into_payload(), b"payload");
    }

    #[test]
    fn another_plan_kind_or_version_is_foreign() {
        let bytes = seal(ObjectKind::Segment, &plan("a"), b"", b"x");
        let open = |bytes: &[u8], kind, name| SealedObject::open(bytes.to_vec(), kind, &plan(name));
        assert!(matches!(open(&bytes, ObjectKind::Segment, "b"), Err(Rejection::Foreign(_))));
        assert!(matches!(open(&bytes, ObjectKind::Pack, "a"), Err(Rejection::Foreign(_))));
        let mut newer = bytes[..bytes.len() - SEAL_BYTES].to_vec();
        newer[8] = 2;
        newer.extend_from_slice(blake3::hash(&newer).as_bytes());
        assert!(matches!(open(&newer, ObjectKind::Segment, "a"), Err(Rejection::Foreign(_))));
    }

    #[test]
    fn every_truncation_and_extension_is_damage() {
        let bytes = seal(ObjectKind::Segment, &plan("a"), b"head", b"payload");
        for length in 0..bytes.len() {
            let cut = SealedObject::open(bytes[..length].to_vec(), ObjectKind::Segment, &plan("a"));
            assert!(matches!(cut, Err(Rejection::Damaged(_))), "{length}");
        }
        let mut longer = bytes;
        longer.push(0);
        let opened = SealedObject::open(longer, ObjectKind::Segment, &plan("a"));
        assert!(matches!(opened, Err(Rejection::Damaged(_))));
    }

    #[test]
    fn lengths_that_overflow_are_damage() {
        let mut bytes = seal(ObjectKind::Segment, &plan("a"), b"", b"");
        bytes.truncate(HEAD_BYTES);
        bytes[12..24].fill(0xff);
        bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
        let opened = SealedObject::open(bytes, ObjectKind::Segment, &plan("a"));
        assert!(matches!(opened, Err(Rejection::Damaged(_))));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_always_damage(
            header in proptest::collection::vec(any::<u8>(), 0..40),
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            place in any::<proptest::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let mut bytes = seal(ObjectKind::Segment, &plan("a"), &header, &payload);
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
            let opened = SealedObject::open(bytes, ObjectKind::Segment, &plan("a"));
            prop_assert!(matches!(opened, Err(Rejection::Damaged(_))));
        }
    }
}
