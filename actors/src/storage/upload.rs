//! Sending an object in pieces: it is seen whole or not at all.

use opendal::options::WriteOptions;
use opendal::{ErrorKind, Writer};

use super::remote::RemoteObject;
use super::{Location, block_on};
use crate::error::{ActorError, Result};

/// Smallest piece of an upload: what the stores demand, and little enough to pass a slow line in time.
const PIECE_BYTES_MIN: u64 = 5 << 20;
/// Stores take 10,000 pieces at most.
const PIECES_MAX: u64 = 9_000;
/// Pieces under way at once; memory is bounded by so many and one more.
const PIECES_AT_ONCE: usize = 2;

/// Returns how large the pieces of an object of so many bytes are.
pub(crate) fn piece_bytes(bytes: u64) -> u64 {
    PIECE_BYTES_MIN.max(bytes.div_ceil(PIECES_MAX))
}

/// Pieces of one object under way: what was sent is dropped with it, unless it was completed.
pub(crate) struct Pieces {
    writer: Option<Writer>,
}

impl Pieces {
    pub(crate) fn begin(object: &RemoteObject, options: WriteOptions, piece_bytes: u64) -> Result<Self> {
        let options = WriteOptions { chunk: usize::try_from(piece_bytes).ok(), concurrent: PIECES_AT_ONCE, ..options };
        let (operator, key) = (object.operator()?, object.key().to_owned());
        let writer = block_on(async move { operator.writer_options(&key, options).await })?;
        Ok(Self { writer: Some(writer.map_err(|e| object.error("write", &e))?) })
    }

    pub(crate) fn write(&mut self, piece: Vec<u8>) -> Result<opendal::Result<()>> {
        let Some(mut writer) = self.writer.take() else { return Ok(Ok(())) };
        let (writer, written) = block_on(async move {
            let written = writer.write(piece).await;
            (writer, written)
        })?;
        self.writer = Some(writer);
        Ok(written)
    }

    pub(crate) fn complete(mut self) -> Result<opendal::Result<()>> {
        let Some(mut writer) = self.writer.take() else { return Ok(Ok(())) };
        let (writer, closed) = block_on(async move {
            let closed = writer.close().await.map(drop);
            (writer, closed)
        })?;
        if closed.is_err() {
            self.writer = Some(writer);
        }
        Ok(closed)
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if let Some(mut writer) = self.writer.take() {
            // A store that cannot forget the pieces now does so by its own rules; they are invisible.
            let _ = block_on(async move { writer.abort().await });
        }
    }
}

/// A new object of an object store that arrives in pieces. Dropped before its end, nothing of it is seen.
pub struct Upload {
    object: RemoteObject,
    pieces: Pieces,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("object", &self.object).finish_non_exhaustive()
    }
}

impl Upload {
    /// Begins an object of at most `bytes_max` bytes; `None` for a name that is taken. Blocks.
    ///
    /// # Errors
    /// `Usage` for what is no object of an object store, `Config` and `Storage` as reading has them.
    pub fn begin(location: &Location, bytes_max: u64) -> Result<Option<Self>> {
        let Location::Remote(object) = location else {
            return Err(ActorError::Usage(format!("{location} is no object of an object store")));
        };
        // The condition at the end decides; this saves sending what would be refused.
        let (operator, key) = (object.operator()?, object.key().to_owned());
        // Who may write need not be able to look; and what is wrong is told to a write alone, in words.
        if block_on(async move { operator.stat(&key).await })?.is_ok() {
            return Ok(None);
        }
        let options = WriteOptions { if_not_exists: true, ..WriteOptions::default() };
        let pieces = Pieces::begin(object, options, piece_bytes(bytes_max))?;
        Ok(Some(Self { object: object.clone(), pieces }))
    }

    /// Adds bytes at the end. Blocks while enough is under way.
    ///
    /// # Errors
    /// `Storage` where the store does not take them.
    pub fn write(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.pieces.write(bytes)?.map_err(|e| self.object.error("write", &e))
    }

    /// Has the store show the object; false where the name was taken meanwhile. Blocks.
    ///
    /// # Errors
    /// `Storage` where the store does not.
    pub fn finish(self) -> Result<bool> {
        match self.pieces.complete()? {
            Ok(()) => Ok(true),
            Err(e) if matches!(e.kind(), ErrorKind::ConditionNotMatch | ErrorKind::AlreadyExists) => Ok(false),
            Err(e) => Err(self.object.error("write", &e)),
        }
    }
}
