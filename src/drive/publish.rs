//! The end of a job: the segments are joined and put where they belong, once.

use super::{Drive, Opened};
use crate::error::{Error, ErrorKind};
use crate::job::Overwrite;
use crate::prepare::Prepared;
use restyle_actors::encode::EncodedSegment;
use restyle_actors::join::{JoinRequest, join};
use restyle_actors::{ActorError, publish};
use restyle_engine::fault;
use restyle_engine::ledger::{Digest, Ledger, PublishedOutput, Scan};

impl Drive {
    /// Returns the output of an earlier run when it stands where it should; refuses to go on over a foreign one.
    pub(super) fn published_already(
        &self,
        ledger: &Ledger,
        prepared: &Prepared,
        overwrite: Overwrite,
    ) -> Result<Option<PublishedOutput>, Error> {
        let Some(existing) = publish::existing(&prepared.output)? else { return Ok(None) };
        let ours = |o: &PublishedOutput| o.bytes == existing.bytes && o.blake3.to_string() == existing.blake3;
        if let Some(out) = ledger.out()?.filter(ours) {
            return Ok(Some(out));
        }
        // Killed between publishing and recording it: the intent was written before.
        if let Some(intent) = ledger.intents()?.into_iter().find(ours) {
            ledger.record_out(&intent)?;
            return Ok(Some(intent));
        }
        match overwrite {
            Overwrite::Allowed => Ok(None),
            Overwrite::Refused => {
                let message = format!(
                    "{} is there already and this job did not make it: name another output or add --overwrite",
                    prepared.output
                );
                Err(Error::new(ErrorKind::Usage, message))
            }
        }
    }

    /// Joins the segments, attaches every other track and publishes the result.
    pub(super) fn publish(
        &self,
        opened: &Opened,
        prepared: &Prepared,
        scan: &Scan,
        replace: bool,
    ) -> Result<PublishedOutput, Error> {
        let frames = scan.finished.values().map(|h| u64::from(h.items)).sum();
        self.phase("joining", frames);
        let staged = opened.folder.join("staged");
        // What an earlier run left may share its bytes with a published output, so it is never written to.
        remove_if_there(&staged)?;
        fault::point("join:before");
        // What has no room is removed, and made again when there is some.
        let joined = opened.store.with_room(|| {
            let mut segments = scan.finished.keys().map(|index| {
                let loaded = opened.segments.load(*index).map_err(ActorError::from)?;
                EncodedSegment::from_bytes(&loaded.payload)
            });
            join(JoinRequest {
                blob: &prepared.blob,
                source: &opened.plan.source,
                settings: &opened.plan.encoder,
                segments: &mut segments,
                staged: &staged,
                cancel: self.control.token(),
            })
        })?;
        if joined.frames != frames {
            let message = format!("{} of {frames} frames came out of the join: a segment is not whole", joined.frames);
            return Err(Error::new(ErrorKind::Storage, message));
        }
        for message in joined.warnings.iter().filter(|m| !prepared.warnings.contains(m)) {
            self.warn(message);
        }
        self.phase("publishing", frames);
        let output = PublishedOutput {
            output: prepared.output.to_string(),
            bytes: joined.bytes,
            blake3: digest(&joined.blake3)?,
            items: frames,
        };
        opened.ledger.intend(&output)?;
        fault::point("publish:before");
        opened.store.with_room(|| publish::publish(&staged, &prepared.output, replace))?;
        fault::point("publish:after");
        opened.ledger.record_out(&output)?;
        fault::point("out:after");
        // A leftover is replaced by the next join; failing here would hide that the output stands.
        let _ = std::fs::remove_file(&staged);
        Ok(output)
    }
}

/// Removes a file, if it is there.
fn remove_if_there(path: &std::path::Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::new(ErrorKind::Storage, format!("cannot remove {}: {e}", path.display())))
        }
        _ => Ok(()),
    }
}

fn digest(hex: &str) -> Result<Digest, Error> {
    hex.parse().map_err(|e| Error::new(ErrorKind::JobFailed, format!("the joined file has no digest: {e}")))
}
