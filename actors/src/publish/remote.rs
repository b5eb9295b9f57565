//! Publishing to an object store: one conditional upload, whose answer may be lost.
//!
//! The store shows the object when the upload is complete, never before. The digest goes with it as metadata, so that
//! whoever meets the object later knows it without reading it. When an upload fails at its end, the object that stands
//! decides: ours is success, whatever was answered.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use opendal::options::{ListOptions, WriteOptions};
use opendal::{ErrorKind, Metadata};

use super::{ExistingOutput, is_taken};
use crate::join::digest;
use crate::storage::upload::{Pieces, piece_bytes};
use crate::storage::{Blob, Location, RemoteObject, block_on};
use crate::{ActorError, Result};

/// Name of the metadata that holds the digest.
const DIGEST: &str = "blake3";
/// How often the content of an object is read again that changes while it is read.
const READS_MAX: u32 = 3;

pub(super) fn existing(object: &RemoteObject) -> Result<Option<ExistingOutput>> {
    refuse_folder(object)?;
    for _ in 0..READS_MAX {
        let Some(metadata) = stat(object)? else { return Ok(None) };
        let bytes = metadata.content_length();
        if let Some(blake3) = told_digest(&metadata) {
            return Ok(Some(ExistingOutput { bytes, blake3 }));
        }
        if bytes == 0 {
            return Ok(Some(ExistingOutput { bytes, blake3: blake3::hash(b"").to_hex().to_string() }));
        }
        match read_digest(object) {
            Ok(read) => return Ok(Some(read)),
            Err(ActorError::InputChanged(_)) => {}
            Err(ActorError::InputUnreadable(message)) => return Err(ActorError::storage(message)),
            Err(error) => return Err(error),
        }
    }
    Err(ActorError::Storage { message: format!("output {object} changes while it is looked at"), transient: true })
}

pub(super) fn check_writable(object: &RemoteObject) -> Result<()> {
    refuse_folder(object)?;
    // A missing bucket answers like a missing object here, so it is listed as well; who may only write may not list.
    stat(object)?;
    let (operator, prefix) = (object.operator()?, object.key().to_owned());
    let listed = block_on(async move {
        let options = ListOptions { limit: Some(1), recursive: true, ..ListOptions::default() };
        let mut lister = operator.lister_options(&prefix, options).await?;
        futures_util::TryStreamExt::try_next(&mut lister).await.map(drop)
    })?;
    match listed {
        Err(error) if matches!(error.kind(), ErrorKind::ConfigInvalid | ErrorKind::NotFound) => {
            Err(ActorError::Storage {
                message: format!("output {object}: there is no bucket {}; create it first", object.bucket_name()),
                transient: false,
            })
        }
        _ => Ok(()),
    }
}

pub(super) fn publish(staged: &Path, object: &RemoteObject, overwrite: bool) -> Result<()> {
    refuse_folder(object)?;
    let (bytes, blake3) = digest(staged)?;
    let ours = ExistingOutput { bytes, blake3 };
    let uploaded = upload(staged, object, overwrite, &ours);
    // Looked at in any case: an answer may be lost, and a store may keep something else than it was given.
    let standing = stat(object)?;
    let is_ours = standing
        .as_ref()
        .is_some_and(|m| m.content_length() == ours.bytes && told_digest(m).is_none_or(|blake3| blake3 == ours.blake3));
    match uploaded {
        Ok(()) if is_ours => Ok(()),
        Ok(()) => Err(ActorError::storage(format!(
            "published {object}, but {} bytes stand there and not the {} that were sent",
            standing.map_or(0, |m| m.content_length()),
            ours.bytes
        ))),
        // Without the digest to go by, an object of the same size may be anybody's.
        Err(failed) if is_ours && standing.as_ref().is_some_and(|m| told_digest(m).is_some()) => {
            tracing::debug!(error = %failed, "the upload failed, but its object stands");
            Ok(())
        }
        Err(failed) => Err(failed),
    }
}

fn upload(staged: &Path, object: &RemoteObject, overwrite: bool, ours: &ExistingOutput) -> Result<()> {
    let piece_bytes = piece_bytes(ours.bytes);
    let options = WriteOptions {
        if_not_exists: !overwrite,
        content_type: Some(content_type(object.key()).to_owned()),
        user_metadata: Some(HashMap::from([(DIGEST.to_owned(), ours.blake3.clone())])),
        ..WriteOptions::default()
    };
    send(staged, Pieces::begin(object, options, piece_bytes)?, piece_bytes, ours, |error| match error.kind() {
        ErrorKind::ConditionNotMatch | ErrorKind::AlreadyExists => is_taken(&object.to_string()),
        _ => object.error("publish", &error),
    })
}

/// Sends a file piece by piece; it must still be the one whose digest was announced.
fn send(
    staged: &Path,
    mut upload: Pieces,
    piece_bytes: u64,
    ours: &ExistingOutput,
    failed: impl Fn(opendal::Error) -> ActorError,
) -> Result<()> {
    let unreadable = |e: std::io::Error| ActorError::storage(format!("cannot read {}: {e}", staged.display()));
    let mut file = File::open(staged).map_err(unreadable)?;
    let mut hasher = blake3::Hasher::new();
    loop {
        let mut piece = Vec::new();
        file.by_ref().take(piece_bytes).read_to_end(&mut piece).map_err(unreadable)?;
        if piece.is_empty() {
            break;
        }
        hasher.update(&piece);
        upload.write(piece)?.map_err(&failed)?;
    }
    if hasher.finalize().to_hex().as_str() != ours.blake3 {
        return Err(ActorError::storage(format!("{} changed while it was published", staged.display())));
    }
    upload.complete()?.map_err(failed)
}

fn stat(object: &RemoteObject) -> Result<Option<Metadata>> {
    let (operator, key) = (object.operator()?, object.key().to_owned());
    match block_on(async move { operator.stat(&key).await })? {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(object.error("look at", &error)),
    }
}

/// The digest that publishing left beside an object, if it is one.
fn told_digest(metadata: &Metadata) -> Option<String> {
    let told = metadata.user_metadata()?;
    let value = told.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(DIGEST)).map(|(_, value)| value)?;
    (value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit())).then(|| value.to_ascii_lowercase())
}

fn read_digest(object: &RemoteObject) -> Result<ExistingOutput> {
    let blob = Blob::open(&Location::Remote(object.clone()))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 4 << 20];
    let mut offset = 0;
    while offset < blob.size() {
        let count = blob.read_at(offset, &mut buffer)?;
        if count == 0 {
            return Err(blob.cut_short(offset));
        }
        hasher.update(&buffer[..count]);
        offset += count as u64;
    }
    Ok(ExistingOutput { bytes: offset, blake3: hasher.finalize().to_hex().to_string() })
}

fn refuse_folder(object: &RemoteObject) -> Result<()> {
    if object.is_folder() {
        return Err(ActorError::Usage(format!("output {object} is a folder; name an object in it")));
    }
    Ok(())
}

fn content_type(key: &str) -> &'static str {
    let extension = key.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    match extension.as_str() {
        "mp4" | "m4v" => "video/mp4",
        "mov" => "video/quicktime",
        "mkv" => "video/x-matroska",
        "webm" => "video/webm",
        _ => "application/octet-stream",
    }
}
