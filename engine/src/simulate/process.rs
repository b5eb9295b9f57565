//! A virtual process that works on the job until it is done, fails, or is ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::disk::Life;
use super::faults::Fault;
use super::pass::{Order, Pass, Strike, Turn};
use super::world::World;
use crate::item::SegmentIndex;
use crate::ledger::{
    AttemptEnd, Digest, FaultyStore, Ledger, LedgerError, LedgerErrorKind, NextPass, PassScope, PublishedOutput,
    Quarantine, RetryPolicy, RetryStore, Schedule, SegmentLedger,
};

/// Why a turn could not be taken to its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// The process died.
    Died,
    /// The ledger or its store failed.
    Ledger(LedgerError),
    /// A promise was broken.
    Broken(String),
}

impl Stop {
    pub(super) fn broken(what: impl Into<String>) -> Stop {
        Stop::Broken(what.into())
    }
}

impl From<LedgerError> for Stop {
    fn from(error: LedgerError) -> Stop {
        match error.kind() {
            LedgerErrorKind::Contradiction => Stop::Broken(error.to_string()),
            _ => Stop::Ledger(error),
        }
    }
}

/// How a process ended.
#[derive(Debug)]
pub(super) enum End {
    Done,
    Failed(BTreeMap<SegmentIndex, Quarantine>),
    Died,
    Drained,
    GaveUp(LedgerError),
}

pub(super) struct Process {
    pub(super) life: Arc<Life>,
    ledger: Ledger,
    /// Whether a person asked for this run, which lifts quarantines.
    is_new_run: bool,
    phase: Phase,
    /// What the last complete pass over all the others held back.
    held_back: Option<BTreeSet<SegmentIndex>>,
}

enum Phase {
    /// For the lock of the job.
    Waiting,
    Opening,
    Passing(Box<Pass>),
    Publishing(Publishing),
}

struct Publishing {
    segments: SegmentLedger,
    chain: Vec<SegmentIndex>,
    step: Step,
}

enum Step {
    Join,
    Intend(Vec<u8>),
    Put(Vec<u8>),
    Record(Vec<u8>),
    Collect,
}

impl Process {
    pub(super) fn new(writer: &str, is_new_run: bool, world: &mut World) -> Process {
        let life = Arc::new(Life::default());
        let handle = Arc::new(world.disk.handle(life.clone()));
        let script = if world.is_calm() { "" } else { &world.profile.store_script };
        let faulty = FaultyStore::new(handle, script, world.random.bits()).expect("scripts of the simulator are read");
        let clock = world.clock();
        let dead = life.clone();
        let wait = move |time: Duration| {
            clock.sleep(time);
            dead.is_dead()
        };
        let seed = world.random.bits();
        let store = RetryStore::new(Arc::new(faulty), RetryPolicy::default(), seed, Arc::new(wait));
        let ledger = Ledger::new(Arc::new(store), world.job, writer);
        let phase = if world.profile.is_shared { Phase::Opening } else { Phase::Waiting };
        Process { life, ledger, is_new_run, phase, held_back: None }
    }

    pub(super) fn writer(&self) -> &str {
        self.ledger.writer()
    }

    /// Lets the process act once. `Err` is a broken promise.
    pub(super) fn turn(&mut self, world: &mut World) -> Result<Option<End>, String> {
        let taken = self.act(world);
        if self.life.is_dead() {
            return match taken {
                Err(Stop::Broken(what)) => Err(what),
                _ => Ok(Some(End::Died)),
            };
        }
        match taken {
            Ok(end) => Ok(end),
            Err(Stop::Died) => Ok(Some(End::Died)),
            Err(Stop::Broken(what)) => Err(what),
            Err(Stop::Ledger(error)) => Ok(Some(End::GaveUp(error))),
        }
    }

    /// Something goes wrong with this process; its end, if that is one.
    pub(super) fn befall(&mut self, fault: Fault, world: &mut World) -> Result<Option<End>, String> {
        let Phase::Passing(pass) = &mut self.phase else { return Ok((fault == Fault::Drain).then_some(End::Drained)) };
        match fault {
            Fault::Panic => drop(pass.strike(Strike::Panic, world)),
            Fault::Hang => drop(pass.strike(Strike::Hang, world)),
            Fault::Preempt => drop(pass.strike(Strike::Preempt, world)),
            Fault::Drain => {
                let drained = pass.end(&AttemptEnd::Preempted, true, world);
                return ended(drained, End::Drained);
            }
            Fault::BreakPass => {
                world.books.strikes += 1;
                let end = AttemptEnd::Failed { message: "the decoder failed".to_owned(), items: vec![] };
                let explained = pass.end(&end, false, world);
                self.phase = Phase::Opening;
                return match ended(explained, End::Died)? {
                    Some(End::GaveUp(error)) => Ok(Some(End::GaveUp(error))),
                    _ => Ok(None),
                };
            }
            Fault::Kill | Fault::KillAtCall | Fault::LosePower => unreachable!("these are the world's"),
        }
        Ok(None)
    }

    fn act(&mut self, world: &mut World) -> Result<Option<End>, Stop> {
        match &mut self.phase {
            Phase::Waiting => {
                if world.take_lock(self.ledger.writer()) {
                    self.phase = Phase::Opening;
                }
                Ok(None)
            }
            Phase::Opening => self.open(world),
            Phase::Passing(pass) => {
                match pass.turn(world)? {
                    Turn::Goes => return Ok(None),
                    Turn::Over => {
                        if let PassScope::Together { held_back } = pass.scope() {
                            self.held_back = Some(held_back.clone());
                        }
                    }
                    Turn::Broken => pass.end(&AttemptEnd::Preempted, false, world)?,
                }
                self.phase = Phase::Opening;
                Ok(None)
            }
            Phase::Publishing(_) => self.publish(world),
        }
    }

    /// Looks at what stands and decides what to do next.
    fn open(&mut self, world: &mut World) -> Result<Option<End>, Stop> {
        let ledger = &self.ledger;
        ledger.open_or_create_job(&json!({"input": "virtual"}))?;
        let plan = ledger.fix_plan(&json!({"segments": "of two seconds"}))?.value;
        let segments = ledger.segments(&plan);
        if std::mem::take(&mut self.is_new_run) {
            ledger.lift_quarantines()?;
        }
        if self.is_published(world)? {
            ledger.collect_garbage()?;
            return Ok(Some(End::Done));
        }
        let scan = segments.scan()?;
        let adopted = segments.adopt(&scan)?;
        world.check_survivors(&scan, &adopted)?;
        let todo = scan.todo()?;
        world.check_todo(&todo)?;
        if todo.is_complete() {
            let chain = scan.finished.into_keys().collect();
            self.phase = Phase::Publishing(Publishing { segments, chain, step: Step::Join });
            return Ok(None);
        }
        let items_packed: u64 = adopted.values().map(|adopted| adopted.items.len() as u64).sum();
        let items_finished = todo.items_finished + items_packed;
        let is_finished = |segment| scan.finished.contains_key(&segment);
        let histories = ledger.histories()?;
        let schedule = Schedule::of(&histories, is_finished, items_finished, |writer| world.is_alive(writer));
        let NextPass::Make(scope) = schedule.next(self.held_back.as_ref(), is_finished) else {
            for (segment, quarantine) in &schedule.quarantined {
                ledger.quarantine(*segment, quarantine)?;
            }
            return Ok(Some(End::Failed(schedule.quarantined)));
        };
        world.note(|| format!("a pass begins: {scope:?}"));
        let order = Order { scope, runs: todo.runs, adopted, items_finished };
        self.phase = Phase::Passing(Box::new(Pass::new(segments, order, world)));
        Ok(None)
    }

    /// Whether this job's output stands at its place; records it where that was not done yet.
    fn is_published(&self, world: &World) -> Result<bool, Stop> {
        let Some(standing) = world.output.as_deref() else { return Ok(false) };
        let digest = Digest::of(standing);
        if self.ledger.out()?.is_some_and(|out| out.blake3 == digest) {
            return Ok(true);
        }
        match self.ledger.intents()?.into_iter().find(|intent| intent.blake3 == digest) {
            Some(intent) => {
                self.ledger.record_out(&intent)?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn publish(&mut self, world: &mut World) -> Result<Option<End>, Stop> {
        let Phase::Publishing(publishing) = &mut self.phase else { unreachable!("asked in this phase") };
        let ledger = &self.ledger;
        let output = |bytes: &[u8]| PublishedOutput {
            output: "virtual".to_owned(),
            bytes: bytes.len() as u64,
            blake3: Digest::of(bytes),
            items: world.stream.items.len() as u64,
        };
        publishing.step = match std::mem::replace(&mut publishing.step, Step::Collect) {
            Step::Join => match publishing.join() {
                Ok(bytes) => Step::Intend(bytes),
                // Damaged since it was scanned, or collected by another process that was done first.
                Err(LedgerError::Missing { .. }) => {
                    self.phase = Phase::Opening;
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            },
            Step::Intend(bytes) => {
                ledger.intend(&output(&bytes))?;
                Step::Put(bytes)
            }
            Step::Put(bytes) => {
                world.put_output(&bytes)?;
                Step::Record(bytes)
            }
            Step::Record(bytes) => {
                ledger.record_out(&output(&bytes))?;
                Step::Collect
            }
            Step::Collect => match ledger.collect_garbage() {
                Ok(_) => return Ok(Some(End::Done)),
                // The record was spoiled on its way to the disk.
                Err(LedgerError::NotPublished(_)) => {
                    self.phase = Phase::Opening;
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            },
        };
        Ok(None)
    }
}

impl Publishing {
    fn join(&self) -> Result<Vec<u8>, LedgerError> {
        let mut bytes = Vec::new();
        for segment in &self.chain {
            bytes.extend(self.segments.load(*segment)?.payload);
        }
        Ok(bytes)
    }
}

fn ended(done: Result<(), Stop>, end: End) -> Result<Option<End>, String> {
    match done {
        Ok(()) => Ok(Some(end)),
        Err(Stop::Died) => Ok(Some(End::Died)),
        Err(Stop::Ledger(error)) => Ok(Some(End::GaveUp(error))),
        Err(Stop::Broken(what)) => Err(what),
    }
}
