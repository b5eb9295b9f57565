//! Whole jobs under a virtual clock, decided by a seed.
//!
//! A run takes a virtual stream through the real parts of this crate: ledger, packs, chain, attempts,
//! pool, leases, credits, reordering, retries. Only what moves them is virtual: one thread plays
//! processes with a decoder, scorers and encoders each, and the seed decides whose turn it is, how long
//! work takes, and what goes wrong: panics, hangs and their late commits, pre-emptions, drains, kills
//! between any two store calls, losses of power that take what was not synced, stores that refuse, lose
//! answers, have no room, cut and flip; items that are poison or kill their process; two processes on one
//! job. After a while nothing more goes wrong, and then the job must end.
//!
//! Checked in every run, besides the assertions of the parts themselves:
//!
//! - the output is byte for byte what an undisturbed run gives, and nothing else is ever seen there;
//! - after a death everything is found again that was durable by contract (L11, L13, L19);
//! - no item is scored again but those that were in flight or not yet durable at a fault (L20);
//! - decoders are told exactly where to resume, to stop, and how far the stream is known (L12);
//! - a late commit of a given-up scorer is refused (L1), and nothing ever waits for ever (L2, L4);
//! - a job fails only after three strikes, names the segment and the item where they are known, and
//!   keeps all the rest (L15 to L17);
//! - after the end only records are left (L18).
//!
//! A seed decides everything: [`run`] with the seed of a failure fails in the same step.

mod disk;
mod faults;
mod pass;
mod process;
mod stream;
mod world;

use std::fmt;

pub use faults::Profile;

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Turns taken.
    pub turns: u64,
    /// Items in the stream.
    pub items: u64,
    /// Items scored, again and again included.
    pub items_scored: u64,
    /// Faults of processes and workers.
    pub faults: u64,
    /// Processes that ran.
    pub processes: u64,
    /// How often the job failed before it was done.
    pub failures: u64,
    /// Digest of everything that happened, in order.
    pub trace: u64,
}

/// A run that broke a promise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Broken {
    /// The seed; [`run`] repeats it.
    pub seed: u64,
    /// The turn in which it broke.
    pub turn: u64,
    /// What broke.
    pub message: String,
    /// What the seed decided, and what happened last.
    pub events: Vec<String>,
}

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "seed {} broke in turn {}: {}", self.seed, self.turn, self.message)?;
        self.events.iter().try_for_each(|event| writeln!(out, "  {event}"))
    }
}

/// Plays one job to its end.
///
/// # Errors
/// The promise that was broken.
pub fn run(seed: u64) -> Result<Outcome, Box<Broken>> {
    world::World::new(seed).play()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `RESTYLE_SIMULATE=first..end` plays other seeds, and `RESTYLE_SIMULATE=seed` one.
    fn seeds() -> std::ops::Range<u64> {
        let Ok(text) = std::env::var("RESTYLE_SIMULATE") else { return 0..10_000 };
        let (first, end) = text.split_once("..").unwrap_or((&text, ""));
        let first: u64 = first.parse().expect("RESTYLE_SIMULATE is a seed or first..end");
        first..end.parse().unwrap_or(first + 1)
    }

    #[test]
    fn every_job_ends_as_promised() {
        let seeds = seeds();
        let threads = 2;
        let total = std::sync::Mutex::new(Outcome::default());
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (seeds, total) = (seeds.clone(), &total);
                scope.spawn(move || {
                    for seed in seeds.skip(thread as usize).step_by(threads as usize) {
                        match run(seed) {
                            Ok(outcome) => total.lock().unwrap().add(&outcome),
                            Err(broken) => panic!("{broken}"),
                        }
                    }
                });
            }
        });
        let total = total.into_inner().unwrap();
        report(&seeds, &total);
        if seeds.end - seeds.start >= 1000 {
            // A simulation in which nothing goes wrong proves nothing.
            assert!(total.faults > total.items / 20 && total.failures > 0 && total.items_scored > total.items);
        }
    }

    #[allow(clippy::print_stderr)]
    fn report(seeds: &std::ops::Range<u64>, total: &Outcome) {
        eprintln!("{} seeds: {total:?}", seeds.end - seeds.start);
    }

    #[test]
    fn a_seed_is_a_run() {
        for seed in [3, 77, 4242] {
            assert_eq!(run(seed).unwrap(), run(seed).unwrap());
        }
        assert_ne!(run(3).unwrap().trace, run(4).unwrap().trace);
    }

    impl Outcome {
        fn add(&mut self, other: &Outcome) {
            self.turns += other.turns;
            self.items += other.items;
            self.items_scored += other.items_scored;
            self.faults += other.faults;
            self.processes += other.processes;
            self.failures += other.failures;
        }
    }
}
