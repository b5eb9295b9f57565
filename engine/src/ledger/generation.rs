//! Create-once with verification: what stands is read and checked, and an invalid object gives way
//! to the next generation of its name. Nothing is ever overwritten or removed here.

use super::error::LedgerError;
use super::object::Rejection;
use super::store::{Creation, ObjectStore, StoreError, StoreErrorKind, StoreOperation};
use crate::item::Generation;

/// How many invalid generations of one object are passed over before the store is held to be broken.
pub const GENERATIONS_MAX: u32 = 16;

/// How often an object that exists and cannot be read is asked for again: listings and reads of a
/// remote store may lag behind its creates.
const VANISHED_READS_MAX: u32 = 3;

/// A valid object and how it came to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing<T> {
    /// What it says.
    pub value: T,
    /// Whether this call wrote it, or it stood already.
    pub creation: Creation,
    /// Which generation it is.
    pub generation: Generation,
    /// Invalid generations passed over.
    pub rejected: u32,
}

/// Makes sure that a valid object stands: writes `bytes` as the first free generation unless an
/// earlier one is valid (L10: of racing creates one wins, and the
/// losers take its result). `own` is what `bytes` say.
pub(super) fn create_verified<T>(
    store: &dyn ObjectStore,
    key: impl Fn(Generation) -> String,
    bytes: &[u8],
    own: T,
    verify: impl Fn(Vec<u8>) -> Result<T, Rejection>,
) -> Result<Standing<T>, LedgerError> {
    let mut last = None;
    for number in 0..GENERATIONS_MAX {
        let generation = Generation(number);
        let key = key(generation);
        let creation = store.create(&key, bytes)?;
        let standing = |value| Standing { value, creation, generation, rejected: number };
        match creation {
            Creation::Created => return Ok(standing(own)),
            Creation::Exists => match verify(read_existing(store, &key)?) {
                Ok(value) => return Ok(standing(value)),
                Err(rejection) => last = Some(rejection),
            },
        }
    }
    Err(spoiled(key(Generation(0)), last))
}

/// Reads the first valid generation; `None` where no valid one stands.
pub(super) fn read_verified<T>(
    store: &dyn ObjectStore,
    key: impl Fn(Generation) -> String,
    verify: impl Fn(Vec<u8>) -> Result<T, Rejection>,
) -> Result<Option<Standing<T>>, LedgerError> {
    let mut last = None;
    for number in 0..GENERATIONS_MAX {
        let generation = Generation(number);
        let Some(bytes) = store.get(&key(generation))? else { return Ok(None) };
        match verify(bytes) {
            Ok(value) => {
                return Ok(Some(Standing { value, creation: Creation::Exists, generation, rejected: number }));
            }
            Err(rejection) => last = Some(rejection),
        }
    }
    Err(spoiled(key(Generation(0)), last))
}

/// Creates an object, taking an equal one that stands there for this one: the answer to an earlier
/// attempt was lost.
pub(super) fn create_own(store: &dyn ObjectStore, key: &str, bytes: &[u8]) -> Result<Creation, StoreError> {
    match store.create(key, bytes)? {
        Creation::Exists if store.get(key)?.is_some_and(|standing| standing == bytes) => Ok(Creation::Created),
        creation => Ok(creation),
    }
}

fn read_existing(store: &dyn ObjectStore, key: &str) -> Result<Vec<u8>, LedgerError> {
    for _ in 0..VANISHED_READS_MAX {
        if let Some(bytes) = store.get(key)? {
            return Ok(bytes);
        }
    }
    let message = "it exists and cannot be read; another process may be removing it";
    Err(StoreError::new(StoreOperation::Get, StoreErrorKind::Transient, key, message).into())
}

fn spoiled(key: String, last: Option<Rejection>) -> LedgerError {
    let rejection = last.unwrap_or_else(|| Rejection::Damaged("none was read".to_owned()));
    LedgerError::Spoiled { key, generations: GENERATIONS_MAX, rejection }
}

#[cfg(test)]
mod tests {
    use super::super::store::MemoryStore;
    use super::*;

    fn key(generation: Generation) -> String {
        format!("a.{}", generation.0)
    }

    fn verify(bytes: Vec<u8>) -> Result<Vec<u8>, Rejection> {
        if bytes.starts_with(b"ok") { Ok(bytes) } else { Err(Rejection::Damaged("not ok".to_owned())) }
    }

    #[test]
    fn a_valid_object_wins_and_is_returned_to_the_loser() {
        let store = MemoryStore::new();
        let first = create_verified(&store, key, b"ok 1", b"ok 1".to_vec(), verify).unwrap();
        assert_eq!((first.creation, first.generation), (Creation::Created, Generation(0)));
        let second = create_verified(&store, key, b"ok 2", b"ok 2".to_vec(), verify).unwrap();
        assert_eq!((second.creation, second.value), (Creation::Exists, b"ok 1".to_vec()));
    }

    #[test]
    fn an_invalid_object_gives_way_to_the_next_generation_and_stays() {
        let store = MemoryStore::new();
        store.overwrite("a.0", b"torn".to_vec());
        let made = create_verified(&store, key, b"ok", b"ok".to_vec(), verify).unwrap();
        assert_eq!((made.generation, made.rejected), (Generation(1), 1));
        assert_eq!(store.get("a.0").unwrap().unwrap(), b"torn");
        let read = read_verified(&store, key, verify).unwrap().unwrap();
        assert_eq!((read.value, read.generation), (b"ok".to_vec(), Generation(1)));
    }

    #[test]
    fn a_store_that_spoils_everything_is_given_up() {
        let store = MemoryStore::new();
        for number in 0..GENERATIONS_MAX {
            store.overwrite(&key(Generation(number)), b"torn".to_vec());
        }
        assert!(matches!(
            create_verified(&store, key, b"ok", b"ok".to_vec(), verify),
            Err(LedgerError::Spoiled { .. })
        ));
        assert!(matches!(read_verified(&store, key, verify), Err(LedgerError::Spoiled { .. })));
    }
}
