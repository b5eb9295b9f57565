//! A few threads that work on one picture together, within the budget that the caller gave.
//!
//! Tasks are numbered and taken in order; what a task computes depends on its number alone, never on who takes it.
//! With a budget of one no thread is started and everything runs on the calling thread.

#![allow(unsafe_code)]

use super::buffer::Buffer;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// One task as its worker sees it.
pub(crate) struct Task {
    /// Number of the task.
    pub(crate) index: usize,
    /// Working memory of this worker, of at least the size reserved; contents are arbitrary.
    pub(crate) scratch: *mut f32,
}

/// The work of a round: borrowed for the time of [`Team::run`], which outlives its use.
type Work = dyn Fn(Task) + Sync + 'static;

#[derive(Clone, Copy)]
struct Round {
    work: *const Work,
    tasks: usize,
}

// SAFETY: the pointer leads to a `Sync` closure that `Team::run` keeps alive until every worker is done with it.
unsafe impl Send for Round {}

#[derive(Default)]
struct State {
    round: Option<Round>,
    /// Counts rounds, so that a worker takes part in each once.
    generation: u64,
    working: usize,
    failed: bool,
    stop: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    started: Condvar,
    finished: Condvar,
    next: AtomicUsize,
    /// Address of each worker's scratch, set before a round and read within it.
    scratch: Mutex<Vec<ScratchAddress>>,
}

#[derive(Clone, Copy)]
struct ScratchAddress(*mut f32);

// SAFETY: each address is used by the one worker it belongs to, within a round.
unsafe impl Send for ScratchAddress {}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scratch(&self, worker: usize) -> *mut f32 {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)[worker].0
    }

    /// Takes tasks until there are none left.
    fn work_through(&self, worker: usize, round: Round) {
        let scratch = self.scratch(worker);
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= round.tasks {
                return;
            }
            // SAFETY: `Team::run` waits for all workers before the closure goes out of scope.
            unsafe { (*round.work)(Task { index, scratch }) };
        }
    }
}

/// The calling thread and `threads - 1` parked helpers, each with working memory of its own.
pub struct Team {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    scratch: Vec<Buffer>,
}

impl Team {
    /// Starts `threads - 1` helpers (none for a budget of zero or one).
    ///
    /// # Errors
    /// The system's error where a thread cannot be started.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let mut team = Self { shared: Arc::default(), helpers: Vec::new(), scratch: vec![Buffer::default()] };
        for worker in 1..threads {
            let shared = Arc::clone(&team.shared);
            let name = format!("restyle-model-{worker}");
            let helper = std::thread::Builder::new().name(name).spawn(move || help(&shared, worker))?;
            team.helpers.push(helper);
            team.scratch.push(Buffer::default());
        }
        Ok(team)
    }

    /// Returns how many threads work, the caller included.
    pub fn threads(&self) -> usize {
        self.scratch.len()
    }

    /// Returns the bytes of working memory held by all workers.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch.iter().map(Buffer::byte_len).sum()
    }

    /// Runs `work` for every task number below `tasks`, with `scratch_len` f32 of working memory a worker.
    ///
    /// Blocks until all are done.
    ///
    /// # Panics
    /// Passes on a panic of `work`, after every worker has left it.
    pub(crate) fn run(&mut self, tasks: usize, scratch_len: usize, work: &(dyn Fn(Task) + Sync)) {
        {
            let mut addresses = self.shared.scratch.lock().unwrap_or_else(PoisonError::into_inner);
            addresses.clear();
            for buffer in &mut self.scratch {
                buffer.reserve(scratch_len);
                addresses.push(ScratchAddress(buffer.as_mut_ptr()));
            }
        }
        // SAFETY: only the lifetime changes; `wait` below returns before `work` can end.
        let work: *const Work = unsafe { std::mem::transmute::<&(dyn Fn(Task) + Sync), &'static Work>(work) };
        let round = Round { work, tasks };
        self.shared.next.store(0, Ordering::Relaxed);
        let helped = !self.helpers.is_empty() && tasks > 1;
        if helped {
            let mut state = self.shared.lock();
            state.round = Some(round);
            state.generation += 1;
            state.working = self.helpers.len();
            state.failed = false;
            self.shared.started.notify_all();
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| self.shared.work_through(0, round)));
        if outcome.is_err() {
            self.shared.next.store(tasks, Ordering::Relaxed);
        }
        let helper_failed = helped && self.wait();
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
        assert!(!helper_failed, "a helper of the model panicked");
    }

    /// Waits for the helpers; tells whether one panicked.
    fn wait(&self) -> bool {
        let mut state = self.shared.lock();
        while state.working > 0 {
            state = self.shared.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.round = None;
        state.failed
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.started.notify_all();
        for helper in self.helpers.drain(..) {
            let _ = helper.join();
        }
    }
}

/// The life of a helper.
fn help(shared: &Shared, worker: usize) {
    let mut seen = 0;
    loop {
        let round = {
            let mut state = shared.lock();
            while !state.stop && state.generation == seen {
                state = shared.started.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stop {
                return;
            }
            seen = state.generation;
            state.round
        };
        let outcome = round.map(|round| catch_unwind(AssertUnwindSafe(|| shared.work_through(worker, round))));
        let failed = matches!(outcome, Some(Err(_)));
        if failed {
            // The others stop at their next task.
            shared.next.store(usize::MAX / 2, Ordering::Relaxed);
        }
        let mut state = shared.lock();
        state.failed |= failed;
        state.working -= 1;
        shared.finished.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [0, 1, 2, 5] {
            let mut team = Team::new(threads).unwrap();
            for tasks in [0, 1, 2, 7, 100] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                team.run(tasks, 16, &|task| {
                    counts[task.index].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{threads} threads");
            }
        }
    }

    #[test]
    fn a_panic_is_passed_on_and_the_team_stays_usable() {
        let mut team = Team::new(3).unwrap();
        for _ in 0..3 {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                team.run(50, 0, &|task| assert_ne!(task.index, 20, "on purpose"));
            }));
            assert!(outcome.is_err());
            let done = AtomicUsize::new(0);
            team.run(50, 0, &|_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), 50);
        }
    }
}
