//! Identities, and the item that moves.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::credit::Credit;

/// Identity of a job: a 256-bit digest of everything that decides its output.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId([u8; 32]);

impl JobId {
    /// A job identity from its digest.
    pub const fn new(digest: [u8; 32]) -> JobId {
        JobId(digest)
    }

    /// The digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 16 of the 64 hexadecimal digits; enough for people and folder names.
    pub fn short(&self) -> String {
        hex(&self.0[..8])
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes every write");
        text
    })
}

/// 64 lower-case hexadecimal digits.
impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({})", self.short())
    }
}

/// A text that is no job identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a job id of 64 hexadecimal digits, got {0:?}")]
pub struct JobIdParseError(String);

/// Reads the 64 digits back; upper case is accepted.
impl FromStr for JobId {
    type Err = JobIdParseError;

    fn from_str(text: &str) -> Result<JobId, JobIdParseError> {
        let refused = || JobIdParseError(text.chars().take(80).collect());
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refused());
        }
        let mut digest = [0; 32];
        for (position, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[position * 2..position * 2 + 2], 16).map_err(|_| refused())?;
        }
        Ok(JobId(digest))
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<JobId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The one after this.
            ///
            /// # Panics
            /// After `u32::MAX`.
            #[must_use]
            pub const fn next(self) -> $name {
                match self.0.checked_add(1) {
                    Some(next) => $name(next),
                    None => panic!("the numbers of an identity are used up"),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Position of a segment in its job, from 0.
    SegmentIndex
}
number! {
    /// Position of an item in its segment, from 0.
    ItemIndex
}
number! {
    /// How many attempts at an item have failed before this one.
    Attempt
}
number! {
    /// Which incarnation of a worker, from 0.
    Generation
}

/// Identity of an item within its job; ordered as the plan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ItemId {
    /// The segment it belongs to.
    pub segment: SegmentIndex,
    /// Its position there.
    pub index: ItemIndex,
}

impl ItemId {
    /// The item at `index` of `segment`.
    pub const fn new(segment: u32, index: u32) -> ItemId {
        ItemId { segment: SegmentIndex(segment), index: ItemIndex(index) }
    }
}

/// `segment:index`
impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.index)
    }
}

/// The unit that moves through a pass, with the credit that lets it be in memory.
///
/// Dropping an item gives its credit back.
#[derive(Debug)]
pub struct Item<T> {
    /// Which item.
    pub id: ItemId,
    /// How many attempts at it have failed.
    pub attempt: Attempt,
    /// What it carries.
    pub payload: T,
    credit: Credit,
}

impl<T> Item<T> {
    /// An item at its first attempt.
    pub fn new(id: ItemId, payload: T, credit: Credit) -> Item<T> {
        Item { id, attempt: Attempt(0), payload, credit }
    }

    /// The same item with what `change` makes of its payload.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Item<U> {
        Item { id: self.id, attempt: self.attempt, payload: change(self.payload), credit: self.credit }
    }

    /// The payload and the credit, apart.
    pub fn into_parts(self) -> (T, Credit) {
        (self.payload, self.credit)
    }

    /// The credit, to look at.
    pub fn credit(&self) -> &Credit {
        &self.credit
    }

    /// The credit, to resize when the payload changes its weight.
    pub fn credit_mut(&mut self) -> &mut Credit {
        &mut self.credit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_id_survives_text_and_json() {
        let id = JobId::new(std::array::from_fn(|position| position as u8 * 7));
        assert_eq!(id.to_string().len(), 64);
        assert_eq!(id.short(), id.to_string()[..16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(serde_json::from_str::<JobId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn what_is_no_job_id_is_refused() {
        for text in ["", "00", &"g".repeat(64), &"0".repeat(63), &"é".repeat(32)] {
            assert!(text.parse::<JobId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn items_are_ordered_as_the_plan_is() {
        assert!(ItemId::new(0, 9) < ItemId::new(1, 0));
        assert!(ItemId::new(1, 2) < ItemId::new(1, 3));
        assert_eq!(ItemId::new(3, 7).to_string(), "3:7");
        assert_eq!(SegmentIndex(4).next(), SegmentIndex(5));
    }
}
