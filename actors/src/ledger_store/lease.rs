//! One process at a time on a job of an object store, as far as a hint can bring it.
//!
//! A lease is an object that its holder rewrites every few seconds. Whoever else wants the job watches it, by its own
//! clock, and takes the job when the object has not changed for some time. A lease may be lost or held twice: then two
//! processes share the job, which costs work and nothing else, since every object is created once and verified.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use restyle_engine::clock::Clock;
use restyle_engine::ledger::{ObjectStore, StoreError, keys};
use restyle_engine::{CancelToken, JobId};
use serde::{Deserialize, Serialize};

use super::RemoteStore;

/// How long a lease stands without a change before it is taken for abandoned.
pub const LEASE_PATIENCE: Duration = Duration::from_secs(15);
/// Looks of a waiting process in that time; a holder rewrites its lease three times and some.
const LOOKS_UNCHANGED_MAX: u32 = 30;
const LOOKS_A_BEAT: u32 = 8;

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
    /// Under which name the holder writes to the ledger.
    #[serde(default)]
    writer: String,
    /// Grows with every rewriting.
    beat: u64,
}

/// A job held by this process until it is dropped, or another takes it for abandoned.
#[derive(Debug)]
pub struct Lease {
    stop: CancelToken,
    ended: Option<crossbeam_channel::Receiver<()>>,
    taken_from: Option<String>,
}

impl Lease {
    /// The writer whose lease was taken for abandoned, where there was one: it may have been stopped only, and live on.
    #[must_use]
    pub fn taken_from(&self) -> Option<&str> {
        self.taken_from.as_deref()
    }
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
    /// Under which name it writes to the ledger; empty for who does not.
    pub writer: String,
    /// How long a lease stands without a change before it is taken for abandoned, the same for everybody:
    /// [`LEASE_PATIENCE`].
    pub patience: Duration,
}

/// The leases of other machines, watched all at once: one that does not change in time belongs to nobody any more.
pub struct LeaseWatch {
    clock: Arc<dyn Clock>,
    patience: Duration,
    seen: BTreeMap<JobId, (Note, Duration)>,
}

fn key(job: &JobId) -> String {
    format!("{}lease", keys::job_prefix(job))
}

/// What cannot be understood is a hint that says nothing.
fn note_of(bytes: Option<Vec<u8>>) -> Option<Note> {
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

impl RemoteStore {
    /// Takes a job if nobody seems to work on it, also one whose lease did not change while it was watched; else returns
    /// who works on it. The store is asked at most three times.
    ///
    /// # Errors
    /// The store's.
    pub fn try_lease(
        &self,
        job: &JobId,
        claimant: &Claimant,
        watch: Option<&LeaseWatch>,
    ) -> Result<Result<Lease, String>, StoreError> {
        match note_of(self.read_hint(&key(job))?) {
            Some(note) if note.scratch != claimant.scratch => match watch {
                Some(watch) if watch.is_abandoned(job, &note) => self.take(key(job), claimant, Some(note)).map(Ok),
                _ => Ok(Err(note.holder)),
            },
            _ => self.take(key(job), claimant, None).map(Ok),
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
        let look = claimant.patience / LOOKS_UNCHANGED_MAX;
        loop {
            let note = match note_of(self.read_hint(key)?) {
                Some(note) if note.scratch != claimant.scratch => note,
                _ => return self.take(key.to_owned(), claimant, None).map(Ok),
            };
            if unchanged >= LOOKS_UNCHANGED_MAX && seen.as_ref() == Some(&note) {
                return self.take(key.to_owned(), claimant, Some(note)).map(Ok);
            }
            if seen.as_ref().is_some_and(|before| *before != note) || cancel.wait_timeout(look) {
                return Ok(Err(note.holder));
            }
            (seen, unchanged) = (Some(note), unchanged + 1);
        }
    }

    /// Tells whether another machine holds a job, as far as is known; changes nothing.
    ///
    /// # Errors
    /// The store's.
    pub fn is_leased(&self, job: &JobId, claimant: &Claimant, watch: &LeaseWatch) -> Result<bool, StoreError> {
        let note = note_of(self.read_hint(&key(job))?);
        Ok(note.is_some_and(|note| note.scratch != claimant.scratch && !watch.is_abandoned(job, &note)))
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
        let look = claimant.patience / LOOKS_UNCHANGED_MAX;
        loop {
            let note = match note_of(self.read_hint(&key(job))?) {
                Some(note) if note.scratch != claimant.scratch => note,
                _ => return self.take(key(job), claimant, None).map(Some),
            };
            if let Some(tell) = on_wait.take() {
                tell(&note.holder);
            }
            unchanged = if seen.as_ref() == Some(&note) { unchanged + 1 } else { 0 };
            if unchanged >= LOOKS_UNCHANGED_MAX {
                return self.take(key(job), claimant, Some(note)).map(Some);
            }
            seen = Some(note);
            if cancel.wait_timeout(look) {
                return Ok(None);
            }
        }
    }

    fn take(&self, key: String, claimant: &Claimant, abandoned: Option<Note>) -> Result<Lease, StoreError> {
        let Claimant { name, nonce, scratch, writer, patience } = claimant.clone();
        let beat = patience / LOOKS_UNCHANGED_MAX * LOOKS_A_BEAT;
        let mut note = Note { holder: name, nonce, scratch, writer, beat: 0 };
        self.write_hint(&key, note_bytes(&note))?;
        let (store, stop) = (self.clone(), CancelToken::new());
        let stopped = stop.clone();
        let (ended, ending) = crossbeam_channel::bounded(1);
        let thread = std::thread::Builder::new().name("restyle-lease".to_owned()).spawn(move || {
            while !stopped.wait_timeout(beat) {
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
            if let Ok(bytes) = store.look_at_hint(&key)
                && note_of(bytes).is_some_and(|standing| standing.nonce == note.nonce)
            {
                let _ = store.delete(&key);
            }
            let _ = ended.send(());
        });
        // Without a thread the lease goes stale and the job may be shared.
        let taken_from = abandoned.map(|note| note.writer).filter(|writer| !writer.is_empty());
        Ok(Lease { stop, ended: thread.is_ok().then_some(ending), taken_from })
    }
}

/// Rewrites a lease; false where it is another's by now.
fn renew(store: &RemoteStore, key: &str, note: &Note) -> Result<bool, StoreError> {
    match note_of(store.look_at_hint(key)?) {
        Some(standing) if standing.nonce != note.nonce => Ok(false),
        _ => store.renew_hint(key, note_bytes(note)).map(|()| true),
    }
}

impl LeaseWatch {
    /// Begins to watch every lease of other machines; `objects` lists and tries again.
    ///
    /// # Errors
    /// The store's.
    pub fn begin(
        store: &RemoteStore,
        objects: &dyn ObjectStore,
        claimant: &Claimant,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let mut seen = BTreeMap::new();
        for entry in objects.list(keys::JOBS)? {
            let Some(job) = leased_job(&entry.key) else { continue };
            if let Some(note) = note_of(store.read_hint(&entry.key)?).filter(|note| note.scratch != claimant.scratch) {
                seen.insert(job, (note, clock.now()));
            }
        }
        Ok(Self { clock, patience: claimant.patience, seen })
    }

    /// Looks at those again that are still watched; what changed or went is not watched any more.
    ///
    /// # Errors
    /// The store's.
    pub fn look(&mut self, store: &RemoteStore) -> Result<(), StoreError> {
        let mut changed = Vec::new();
        for (job, (note, _)) in &self.seen {
            if note_of(store.read_hint(&key(job))?).as_ref() != Some(note) {
                changed.push(*job);
            }
        }
        changed.iter().for_each(|job| drop(self.seen.remove(job)));
        Ok(())
    }

    /// Tells whether watching on can find nothing more: every lease changed, or stood still for long enough.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.seen.values().all(|(_, since)| self.is_old(*since))
    }

    /// How long to wait before the next look.
    #[must_use]
    pub fn pause(&self) -> Duration {
        self.patience / LOOKS_UNCHANGED_MAX * LOOKS_A_BEAT / 2
    }

    fn is_abandoned(&self, job: &JobId, standing: &Note) -> bool {
        self.seen.get(job).is_some_and(|(note, since)| note == standing && self.is_old(*since))
    }

    fn is_old(&self, since: Duration) -> bool {
        self.clock.now().saturating_sub(since) >= self.patience
    }
}

/// The job whose lease has this key.
fn leased_job(entry: &str) -> Option<JobId> {
    let (job, name) = entry.strip_prefix(keys::JOBS)?.split_once('/')?;
    (name == "lease").then(|| job.parse().ok()).flatten()
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
