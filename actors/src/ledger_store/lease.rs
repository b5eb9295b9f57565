//! One process at a time on a job of an object store, as far as a hint can bring it.
//!
//! A lease is an object that its holder rewrites every few seconds. Whoever else wants the job watches it, by its own
//! clock, and takes the job when the object has not changed for some time. A lease may be lost or held twice: then two
//! processes share the job, which costs work and nothing else, since every object is created once and verified.

use std::time::Duration;

use restyle_engine::ledger::{ObjectStore as _, StoreError, keys};
use restyle_engine::{CancelToken, JobId};
use serde::{Deserialize, Serialize};

use super::RemoteStore;

/// How often a holder rewrites its lease.
const BEAT: Duration = Duration::from_secs(4);
/// How often a waiting process looks.
const LOOK: Duration = Duration::from_millis(500);
/// Looks in a row without a change after which a lease is taken for abandoned: three beats and some.
const LOOKS_UNCHANGED_MAX: u32 = 30;

/// How long removing a lease is waited for.
const RELEASE_PATIENCE: Duration = Duration::from_secs(3);

/// What a lease says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// Who holds it, for people.
    holder: String,
    /// Tells one holding from another.
    nonce: String,
    /// The folder whose lock the holder has as well. Who has that lock now knows that the holder is gone.
    scratch: String,
    /// Grows with every rewriting.
    beat: u64,
}

/// A job held by this process until it is dropped, or another takes it for abandoned.
#[derive(Debug)]
pub struct Lease {
    stop: CancelToken,
    ended: Option<crossbeam_channel::Receiver<()>>,
}

/// Who wants a job.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// Named to those who wait.
    pub name: String,
    /// Differs between any two processes.
    pub nonce: String,
    /// Names the local folder whose lock this process holds for the job.
    pub scratch: String,
}

fn key(job: &JobId) -> String {
    format!("{}lease", keys::job_prefix(job))
}

/// What cannot be understood is a hint that says nothing.
fn note_of(bytes: Option<Vec<u8>>) -> Option<Note> {
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

impl RemoteStore {
    /// Takes a job if nobody seems to work on it; else returns who does. The store is asked at most three times.
    ///
    /// # Errors
    /// The store's.
    pub fn try_lease(&self, job: &JobId, claimant: &Claimant) -> Result<Result<Lease, String>, StoreError> {
        match note_of(self.read_hint(&key(job))?) {
            Some(note) if note.scratch != claimant.scratch => Ok(Err(note.holder)),
            _ => self.take(key(job), claimant).map(Ok),
        }
    }

    /// Takes what the object `key` stands for, waiting until it is plain whether its holder lives; returns who does where
    /// it does, and where cancelled first.
    ///
    /// # Errors
    /// The store's.
    pub fn lease_unless_held(
        &self,
        key: &str,
        claimant: &Claimant,
        cancel: &CancelToken,
    ) -> Result<Result<Lease, String>, StoreError> {
        let (mut seen, mut unchanged) = (None, 0);
        loop {
            let note = match note_of(self.read_hint(key)?) {
                Some(note) if note.scratch != claimant.scratch && unchanged < LOOKS_UNCHANGED_MAX => note,
                _ => return self.take(key.to_owned(), claimant).map(Ok),
            };
            if seen.as_ref().is_some_and(|before| *before != note) || cancel.wait_timeout(LOOK) {
                return Ok(Err(note.holder));
            }
            (seen, unchanged) = (Some(note), unchanged + 1);
        }
    }

    /// Takes a job, waiting for whoever works on it; `on_wait` is told once, before the wait begins. `None` when
    /// cancelled first.
    ///
    /// # Errors
    /// The store's.
    pub fn lease_blocking(
        &self,
        job: &JobId,
        claimant: &Claimant,
        cancel: &CancelToken,
        on_wait: impl FnOnce(&str),
    ) -> Result<Option<Lease>, StoreError> {
        let mut on_wait = Some(on_wait);
        let (mut seen, mut unchanged) = (None, 0);
        loop {
            let note = match note_of(self.read_hint(&key(job))?) {
                Some(note) if note.scratch != claimant.scratch && unchanged < LOOKS_UNCHANGED_MAX => note,
                _ => return self.take(key(job), claimant).map(Some),
            };
            if let Some(tell) = on_wait.take() {
                tell(&note.holder);
            }
            unchanged = if seen.as_ref() == Some(&note) { unchanged + 1 } else { 0 };
            seen = Some(note);
            if cancel.wait_timeout(LOOK) {
                return Ok(None);
            }
        }
    }

    fn take(&self, key: String, claimant: &Claimant) -> Result<Lease, StoreError> {
        let Claimant { name, nonce, scratch } = claimant.clone();
        let mut note = Note { holder: name, nonce, scratch, beat: 0 };
        self.write_hint(&key, note_bytes(&note))?;
        let (store, stop) = (self.clone(), CancelToken::new());
        let stopped = stop.clone();
        let (ended, ending) = crossbeam_channel::bounded(1);
        let thread = std::thread::Builder::new().name("restyle-lease".to_owned()).spawn(move || {
            while !stopped.wait_timeout(BEAT) {
                note.beat += 1;
                match renew(&store, &key, &note) {
                    Ok(true) => {}
                    Ok(false) => {
                        tracing::warn!(%key, "another process took this for abandoned: both work on it now");
                        return;
                    }
                    Err(error) => tracing::debug!(%key, %error, "the lease was not renewed"),
                }
            }
            // Those who wait see at once that it is free. Left behind, it is taken for abandoned a little later.
            if let Ok(bytes) = store.get(&key)
                && note_of(bytes).is_some_and(|standing| standing.nonce == note.nonce)
            {
                let _ = store.delete(&key);
            }
            let _ = ended.send(());
        });
        // Without a thread the lease goes stale and the job may be shared.
        Ok(Lease { stop, ended: thread.is_ok().then_some(ending) })
    }
}

/// Rewrites a lease; false where it is another's by now.
fn renew(store: &RemoteStore, key: &str, note: &Note) -> Result<bool, StoreError> {
    match note_of(store.get(key)?) {
        Some(standing) if standing.nonce != note.nonce => Ok(false),
        _ => store.renew_hint(key, note_bytes(note)).map(|()| true),
    }
}

fn note_bytes(note: &Note) -> Vec<u8> {
    serde_json::to_vec(note).unwrap_or_default()
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(ended) = &self.ended {
            // A store that hangs must not hold up an end that was asked for.
            let _ = ended.recv_timeout(RELEASE_PATIENCE);
        }
    }
}
