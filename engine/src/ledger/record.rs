//! Sealed records: the ledger's small objects, JSON that people and `jq` can read.
//!
//! A record is one object whose last field is the blake3 digest of every byte before that field, so
//! it is verified byte for byte and never by parsing and printing again:
//! `{"schema":1,"kind":"plan","job":"…","body":…,"blake3":"…"}`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::object::Rejection;
use crate::item::JobId;

const SCHEMA: u32 = 1;
const SEAL_OPEN: &str = ",\"blake3\":\"";
const SEAL_CLOSE: &str = "\"}\n";
const DIGEST_DIGITS: usize = 64;

/// What a record states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordKind {
    /// A job was accepted.
    Job,
    /// How the job is done.
    Plan,
    /// What a first look at the input found, for all who work on the job.
    Calibration,
    /// An output of this digest is about to be published.
    Intent,
    /// The output was published.
    Out,
    /// An attempt at a segment begins.
    Try,
    /// Why an attempt ended.
    Fail,
    /// A segment is in quarantine.
    Dead,
}

/// A record whose seal held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<B> {
    /// What it says.
    pub body: B,
    /// Digest of its bytes; names this very record.
    pub digest: Digest,
}

#[derive(Serialize)]
struct Written<'a, B> {
    schema: u32,
    kind: RecordKind,
    job: String,
    body: &'a B,
}

#[derive(Deserialize)]
struct Head {
    schema: u32,
    kind: serde_json::Value,
    job: String,
}

#[derive(Deserialize)]
struct Read<B> {
    body: B,
}

/// Writes a sealed record.
///
/// # Errors
/// A body that JSON cannot hold, such as a map with keys that are not text.
pub fn seal_record<B: Serialize>(kind: RecordKind, job: &JobId, body: &B) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(&Written { schema: SCHEMA, kind, job: job.to_string(), body })?;
    assert_eq!(bytes.pop(), Some(b'}'), "a record is one JSON object");
    let digest = Digest::of(&bytes);
    bytes.extend_from_slice(SEAL_OPEN.as_bytes());
    bytes.extend_from_slice(digest.to_string().as_bytes());
    bytes.extend_from_slice(SEAL_CLOSE.as_bytes());
    Ok(bytes)
}

/// Reads a record of this kind and job.
///
/// # Errors
/// `Damaged` when the seal does not hold, `Foreign` when it does but the record is another job's,
/// another kind's, or has a body of another version.
pub fn open_record<B: DeserializeOwned>(bytes: &[u8], kind: RecordKind, job: &JobId) -> Result<Record<B>, Rejection> {
    let (sealed, digest) = unseal(bytes).ok_or_else(|| Rejection::Damaged("the record's seal does not hold".into()))?;
    let foreign = |what: String| Rejection::Foreign(what);
    let mut whole = sealed.to_vec();
    whole.push(b'}');
    let head: Head = serde_json::from_slice(&whole).map_err(|error| foreign(format!("not a record: {error}")))?;
    if head.schema != SCHEMA {
        return Err(foreign(format!("record schema {}, this program writes {SCHEMA}", head.schema)));
    }
    if serde_json::from_value(head.kind.clone()).ok() != Some(kind) {
        return Err(foreign(format!("record of kind {}, expected {kind:?}", head.kind)));
    }
    if head.job != job.to_string() {
        return Err(foreign(format!("record of job {}, expected {job}", head.job)));
    }
    let read: Read<B> = serde_json::from_slice(&whole)
        .map_err(|error| foreign(format!("{kind:?} record of another version: {error}")))?;
    Ok(Record { body: read.body, digest })
}

fn unseal(bytes: &[u8]) -> Option<(&[u8], Digest)> {
    let seal_bytes = SEAL_OPEN.len() + DIGEST_DIGITS + SEAL_CLOSE.len();
    let sealed = bytes.len().checked_sub(seal_bytes)?;
    let seal = std::str::from_utf8(&bytes[sealed..]).ok()?;
    let digest: Digest = seal.strip_prefix(SEAL_OPEN)?.strip_suffix(SEAL_CLOSE)?.parse().ok()?;
    (Digest::of(&bytes[..sealed]) == digest).then_some((&bytes[..sealed], digest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn job(byte: u8) -> JobId {
        JobId::new([byte; 32])
    }

    #[test]
    fn a_record_is_json_and_opens_to_what_was_sealed() {
        let body = json!({"crf": 18.1, "name": "tür \"x\"", "list": [1, 2]});
        let bytes = seal_record(RecordKind::Plan, &job(1), &body).unwrap();
        let plain: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(plain["body"], body);
        let record = open_record::<Value>(&bytes, RecordKind::Plan, &job(1)).unwrap();
        assert_eq!(record.body, body);
        assert_eq!(plain["blake3"], record.digest.to_string());
    }

    #[test]
    fn another_job_kind_or_body_is_foreign() {
        let bytes = seal_record(RecordKind::Plan, &job(1), &json!({"a": 1})).unwrap();
        assert!(matches!(open_record::<Value>(&bytes, RecordKind::Plan, &job(2)), Err(Rejection::Foreign(_))));
        assert!(matches!(open_record::<Value>(&bytes, RecordKind::Job, &job(1)), Err(Rejection::Foreign(_))));
        assert!(matches!(open_record::<Vec<u8>>(&bytes, RecordKind::Plan, &job(1)), Err(Rejection::Foreign(_))));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_damage() {
        let bytes = seal_record(RecordKind::Out, &job(1), &json!({"output": "a.mp4"})).unwrap();
        for length in 0..bytes.len() {
            let opened = open_record::<Value>(&bytes[..length], RecordKind::Out, &job(1));
            assert!(matches!(opened, Err(Rejection::Damaged(_))), "{length}");
        }
        for place in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[place / 8] ^= 1 << (place % 8);
            let opened = open_record::<Value>(&flipped, RecordKind::Out, &job(1));
            assert!(matches!(opened, Err(Rejection::Damaged(_))), "{place}");
        }
    }
}
