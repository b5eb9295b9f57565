//! Failing stores for rehearsals, in builds that have the feature `faults`; nothing but fixed times in others.

use crate::error::{Error, ErrorKind};
use restyle_actors::ledger_store::LEASE_PATIENCE;
use restyle_engine::ledger::ObjectStore;
use std::sync::Arc;
use std::time::Duration;

/// Says which calls of the work store fail, and how.
const SCRIPT: &str = "RESTYLE_STORE_FAULTS";
/// Says how long things last, so that a rehearsal need not take minutes.
const TIMES: &str = "RESTYLE_STORE_TIMES";

/// How long a work store is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    /// An answer to one call of a local folder. A network file system that comes back within ten of these is never noticed.
    pub(super) call: Duration,
    /// Room on a full disk.
    pub(super) room: Duration,
    /// A change of a lease.
    pub(super) lease: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { call: Duration::from_secs(60), room: Duration::from_secs(300), lease: LEASE_PATIENCE }
    }
}

#[cfg(feature = "faults")]
impl Times {
    /// Reads `call=300,room=2000,lease=3000`, in milliseconds; what is left out is as ever.
    fn parse(text: &str) -> Option<Self> {
        let mut times = Self::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (name, millis) = entry.split_once('=')?;
            let time = Duration::from_millis(millis.parse().ok().filter(|millis| *millis > 0)?);
            match name {
                "call" => times.call = time,
                "room" => times.room = time,
                "lease" => times.lease = time,
                _ => return None,
            }
        }
        Some(times)
    }
}

/// Returns the times, and puts the script between this process and its store.
///
/// # Errors
/// [`ErrorKind::Usage`] for what cannot be read.
#[cfg(feature = "faults")]
pub(super) fn times() -> Result<Times, Error> {
    let Ok(text) = std::env::var(TIMES) else { return Ok(Times::default()) };
    let expected = || Error::new(ErrorKind::Usage, format!("{TIMES}: expected call=MS,room=MS,lease=MS, got {text:?}"));
    Times::parse(&text).ok_or_else(expected)
}

/// Puts the script between this process and a store.
///
/// # Errors
/// [`ErrorKind::Usage`] for a script that cannot be read.
#[cfg(feature = "faults")]
pub(super) fn rehearsed(store: Arc<dyn ObjectStore>) -> Result<Arc<dyn ObjectStore>, Error> {
    let Ok(script) = std::env::var(SCRIPT) else { return Ok(store) };
    let faulty = restyle_engine::ledger::faulty::FaultyStore::new(store, &script, 1)
        .map_err(|e| Error::new(ErrorKind::Usage, format!("{SCRIPT}: {e}")))?;
    Ok(Arc::new(faulty))
}

#[cfg(not(feature = "faults"))]
pub(super) fn times() -> Result<Times, Error> {
    refuse(TIMES).map(|()| Times::default())
}

#[cfg(not(feature = "faults"))]
pub(super) fn rehearsed(store: Arc<dyn ObjectStore>) -> Result<Arc<dyn ObjectStore>, Error> {
    refuse(SCRIPT).map(|()| store)
}

/// A rehearsal that silently is none would be taken for a proof.
#[cfg(not(feature = "faults"))]
pub(crate) fn refuse(variable: &str) -> Result<(), Error> {
    match std::env::var_os(variable) {
        Some(script) if !script.is_empty() => {
            let message =
                format!("{variable} is set, but this build rehearses no faults: build it with --features faults");
            Err(Error::new(ErrorKind::Usage, message))
        }
        _ => Ok(()),
    }
}

#[cfg(all(test, feature = "faults"))]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_or_refused() {
        let times = Times::parse("room=1500, lease=3000").unwrap();
        assert_eq!((times.room, times.lease), (Duration::from_millis(1500), Duration::from_secs(3)));
        assert_eq!(times.call, Times::default().call);
        for wrong in ["room", "room=0", "room=x", "rooms=1"] {
            assert_eq!(Times::parse(wrong), None, "{wrong}");
        }
    }
}
