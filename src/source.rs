//! What an input holds, for programs that want to know before they submit it.

use crate::error::Error;
use restyle_actors::source_info::SourceInfo;
use restyle_actors::storage::{Blob, Location};
use std::sync::Arc;

/// Opens an input and reads its headers; blocks.
///
/// # Errors
/// The input is missing, unreadable, not a video or refused.
pub fn probe(input: &str) -> Result<SourceInfo, Error> {
    let blob = Arc::new(Blob::open(&Location::parse(input)?)?);
    Ok(restyle_actors::source::probe(&blob)?)
}
