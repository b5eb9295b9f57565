//! Everything outside the processes: time, disk, stream, output, faults, and the books that are checked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::disk::{Disk, Fuse};
use super::faults::{Fault, Profile};
use super::pass::Effect;
use super::process::{End, Process, Stop};
use super::stream::{SourceItem, Stream, score};
use super::{Broken, Outcome};
use crate::clock::Clock;
use crate::item::{ItemIndex, JobId, SegmentIndex};
use crate::ledger::keys::ObjectName;
use crate::ledger::{Adopted, Ledger, ObjectStore, Quarantine, Scan, Todo};
use crate::random::Random;

/// Far beyond what any job needs: more is a job that never ends (L2).
const TURNS_MAX: u64 = 60_000;
const EVENTS_KEPT: usize = 60;

/// A clock that only the simulation moves; a sleep moves it.
#[derive(Default)]
struct VirtualClock {
    micros: AtomicU64,
}

impl Clock for VirtualClock {
    fn now(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }
    fn unix(&self) -> Duration {
        self.now()
    }
    fn sleep(&self, duration: Duration) {
        self.micros.fetch_add(duration.as_micros() as u64, Ordering::Relaxed);
    }
}

pub(super) struct World {
    seed: u64,
    pub(super) random: Random,
    pub(super) profile: Profile,
    pub(super) stream: Stream,
    pub(super) disk: Disk,
    pub(super) job: JobId,
    pub(super) output: Option<Vec<u8>>,
    pub(super) books: Books,
    clock: Arc<VirtualClock>,
    /// Writers that live.
    alive: BTreeSet<String>,
    /// The writer that has the job.
    lock: Option<String>,
    /// Poison and lethal items harm no more.
    is_cured: bool,
    outcome: Outcome,
    events: VecDeque<String>,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let stream = Stream::of(&mut random);
        let profile = Profile::of(&mut random, stream.items.len());
        let outcome = Outcome { items: stream.items.len() as u64, ..Outcome::default() };
        World {
            seed,
            disk: Disk::new(profile.has_logs),
            books: Books::new(!profile.is_corrupting && !profile.is_shared),
            random,
            profile,
            stream,
            job: JobId::new([7; 32]),
            output: None,
            clock: Arc::default(),
            alive: BTreeSet::new(),
            lock: None,
            is_cured: false,
            outcome,
            events: VecDeque::new(),
        }
    }

    pub(super) fn play(mut self) -> Result<Outcome, Box<Broken>> {
        match self.play_turns() {
            Ok(()) => {
                self.outcome.items_scored = self.books.items_scored;
                Ok(self.outcome)
            }
            Err(message) => {
                let mut events = vec![format!("{:?}", self.profile), format!("{:?}", self.stream.segments())];
                events.extend(self.events);
                Err(Box::new(Broken { seed: self.seed, turn: self.outcome.turns, message, events }))
            }
        }
    }

    fn play_turns(&mut self) -> Result<(), String> {
        let slots = if self.profile.is_shared || self.random.happens(300) { 2 } else { 1 };
        let mut processes: Vec<Option<Process>> = (0..slots).map(|_| Some(self.start(true))).collect();
        while processes.iter().any(Option::is_some) {
            self.outcome.turns += 1;
            if self.outcome.turns > TURNS_MAX {
                return Err("the job never ends".to_owned());
            }
            let passed = Duration::from_millis(1 + self.random.below(40));
            self.clock.sleep(passed);
            if !self.is_calm() && self.random.happens(self.profile.fault_odds) {
                self.outcome.faults += 1;
                let fault = Fault::of(&mut self.random);
                self.note(|| format!("fault: {fault:?}"));
                self.inject(fault, &mut processes)?;
            }
            let slot = self.random.below(slots) as usize;
            if let Some(process) = &mut processes[slot]
                && let Some(end) = process.turn(self)?
            {
                processes[slot] = self.follow(end, process)?;
            }
        }
        self.check_leftovers()
    }

    fn inject(&mut self, fault: Fault, processes: &mut [Option<Process>]) -> Result<(), String> {
        let slot = self.random.below(processes.len() as u64) as usize;
        match (fault, &mut processes[slot]) {
            (Fault::LosePower, _) => {
                self.books.strikes += 1;
                for slot in processes.iter_mut() {
                    if let Some(process) = slot {
                        process.life.kill();
                        *slot = self.follow(End::Died, process)?;
                    }
                }
                self.disk.lose_power(&mut self.random);
                self.books.power_was_lost();
            }
            (_, None) => {}
            (Fault::Kill, Some(process)) => {
                process.life.kill();
                processes[slot] = self.follow(End::Died, process)?;
            }
            (Fault::KillAtCall, Some(process)) => {
                process.life.light(Fuse { calls: self.random.below(12), after: self.random.happens(500) });
            }
            (fault, Some(process)) => {
                if let Some(end) = process.befall(fault, self)? {
                    processes[slot] = self.follow(end, process)?;
                }
            }
        }
        Ok(())
    }

    /// What follows the end of a process: another in its place, until the job is done.
    fn follow(&mut self, end: End, process: &Process) -> Result<Option<Process>, String> {
        self.note(|| format!("{} ends: {end:?}", process.writer()));
        self.alive.remove(process.writer());
        self.lock = self.lock.take().filter(|holder| holder != process.writer());
        match end {
            End::Done => return Ok(None),
            End::Failed(quarantined) => {
                self.outcome.failures += 1;
                self.check_failure(&quarantined)?;
                // Somebody looks at it, mends the source, and asks again.
                self.is_cured = true;
                return Ok(Some(self.start(true)));
            }
            End::Died => self.books.strikes += 1,
            End::Drained | End::GaveUp(_) => {}
        }
        let by_hand = self.random.happens(300);
        Ok(Some(self.start(by_hand)))
    }

    fn start(&mut self, is_new_run: bool) -> Process {
        self.outcome.processes += 1;
        let writer = format!("p{}", self.outcome.processes);
        self.note(|| format!("{writer} starts, by hand: {is_new_run}"));
        self.alive.insert(writer.clone());
        Process::new(&writer, is_new_run, self)
    }

    // --- what processes see ---

    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Whether nothing more goes wrong.
    pub(super) fn is_calm(&self) -> bool {
        self.outcome.faults >= self.profile.faults_max
    }

    pub(super) fn is_alive(&self, writer: &str) -> bool {
        self.alive.contains(writer)
    }

    pub(super) fn take_lock(&mut self, writer: &str) -> bool {
        self.lock.get_or_insert_with(|| writer.to_owned()) == writer
    }

    pub(super) fn effect_of(&self, item: &SourceItem) -> Effect {
        let place = self.stream.find(item.pts, item.source);
        if self.is_cured || place.is_none() {
            Effect::Scored
        } else if self.profile.lethal == place {
            Effect::Lethal
        } else if self.profile.poison == place {
            Effect::Poison
        } else {
            Effect::Scored
        }
    }

    /// Puts the output at its place, at once and as a whole.
    pub(super) fn put_output(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        if bytes != self.stream.output() {
            return Err(Stop::broken("the output is not that of an undisturbed run"));
        }
        self.output = Some(bytes.to_vec());
        Ok(())
    }

    /// Writes down what happened; part of the trace that two runs of a seed share.
    pub(super) fn note(&mut self, event: impl FnOnce() -> String) {
        let event = format!("{:>5} {:>9.3}s {}", self.outcome.turns, self.clock.now().as_secs_f64(), event());
        let fold = |trace: u64, byte: u8| (trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        self.outcome.trace = event.bytes().fold(self.outcome.trace, fold);
        self.events.push_back(event);
        if self.events.len() > EVENTS_KEPT {
            self.events.pop_front();
        }
    }

    // --- what is checked ---

    /// L13, L19: what was durable by contract is found again.
    pub(super) fn check_survivors(
        &mut self,
        scan: &Scan,
        adopted: &BTreeMap<SegmentIndex, Adopted>,
    ) -> Result<(), Stop> {
        let mut found: BTreeSet<ItemPlace> = BTreeSet::new();
        for header in scan.finished.values() {
            found.extend((0..header.items).map(|index| (header.segment, ItemIndex(index))));
        }
        for (segment, adopted) in adopted {
            found.extend(adopted.items.keys().map(|index| (*segment, *index)));
        }
        let items = self.stream.items.len();
        self.note(|| format!("{} of {items} items are found finished", found.len()));
        self.books.found(found)
    }

    /// L12: the ledger counts what the stream has.
    pub(super) fn check_todo(&self, todo: &Todo) -> Result<(), Stop> {
        let items = self.stream.items.len() as u64;
        if todo.items_finished > items || todo.is_complete() && todo.items_finished != items {
            return Err(Stop::broken(format!("{todo:?} of a stream of {items} items")));
        }
        Ok(())
    }

    /// L15 to L17: a job fails for a reason, says what it is, and keeps the rest.
    fn check_failure(&self, quarantined: &BTreeMap<SegmentIndex, Quarantine>) -> Result<(), String> {
        if self.books.strikes < 3 {
            return Err(format!("{quarantined:?} after {} strikes", self.books.strikes));
        }
        let only_poison = self.outcome.faults == 0 && self.profile.lethal.is_none() && !self.profile.is_shared;
        if let Some(poison) = self.profile.poison.filter(|_| only_poison && self.books.is_strict) {
            let item = self.stream.items[poison];
            let named = quarantined.get(&item.segment).map(|quarantine| &quarantine.items[..]);
            if quarantined.len() != 1 || named != Some(&[item.index]) {
                return Err(format!("{item:?} is poison and {quarantined:?} was given up"));
            }
        }
        if self.books.is_strict {
            let ledger = self.observer();
            let plan = ledger.plan().map_err(|error| error.to_string())?.ok_or("a job without a plan failed")?;
            let scan = ledger.segments(&plan).scan().map_err(|error| error.to_string())?;
            let is_kept = |k: &SegmentIndex| scan.finished.contains_key(k) || quarantined.contains_key(k);
            if let Some((lost, _)) = self.stream.segments().iter().find(|(segment, _)| !is_kept(segment)) {
                return Err(format!("{quarantined:?} was given up and {lost} was not finished"));
            }
        }
        Ok(())
    }

    /// L18: after the end only records are left, and the output stands.
    fn check_leftovers(&self) -> Result<(), String> {
        let ledger = self.observer();
        let entries = ledger.store().list("").map_err(|error| error.to_string())?;
        let is_record = |key: &str| {
            let name = ObjectName::parse(&self.job, key);
            matches!(name, Some(ObjectName::Job(_) | ObjectName::Plan(_) | ObjectName::Intent(_) | ObjectName::Out(_)))
        };
        if let Some(left) = entries.iter().find(|entry| !is_record(&entry.key)) {
            return Err(format!("{} is left after the end", left.key));
        }
        match (&self.output, ledger.out()) {
            (Some(output), Ok(Some(_))) if *output == self.stream.output() => Ok(()),
            (output, out) => Err(format!("the job is done with output {output:?}, on record {out:?}")),
        }
    }

    /// The ledger as nobody's fault touches it.
    fn observer(&self) -> Ledger {
        Ledger::new(Arc::new(self.disk.handle(Arc::default())), self.job, "observer")
    }
}

type ItemPlace = (SegmentIndex, ItemIndex);

/// What must be finished whatever happens next, and how much was done.
pub(super) struct Books {
    /// Whether what is durable must stay so: nobody spoils it, and only one process works.
    pub(super) is_strict: bool,
    survives_death: BTreeSet<ItemPlace>,
    survives_all: BTreeSet<ItemPlace>,
    power_was_lost: bool,
    pub(super) items_scored: u64,
    /// Explained failures and deaths so far.
    pub(super) strikes: u64,
}

impl Books {
    fn new(is_strict: bool) -> Books {
        Books {
            is_strict,
            survives_death: BTreeSet::new(),
            survives_all: BTreeSet::new(),
            power_was_lost: false,
            items_scored: 0,
            strikes: 0,
        }
    }

    pub(super) fn scored(&mut self, _item: SourceItem) {
        self.items_scored += 1;
    }

    /// L20: what is finished is not scored again.
    pub(super) fn sent_to_scorers(&self, item: SourceItem) -> Result<(), Stop> {
        if self.is_strict && self.survives_death.contains(&place(&item)) {
            return Err(Stop::broken(format!("L20: {item:?} is finished and scored again")));
        }
        Ok(())
    }

    /// L11: what is read is what was written.
    pub(super) fn adopted(&self, item: SourceItem, payload: &[u8]) -> Result<(), Stop> {
        if payload != score(item.source) {
            return Err(Stop::broken(format!("L11: {item:?} was adopted as {payload:?}")));
        }
        Ok(())
    }

    pub(super) fn survives_death(&mut self, item: SourceItem) {
        self.survives_death.insert(place(&item));
    }

    pub(super) fn survives_all(&mut self, item: SourceItem) {
        self.survives_death.insert(place(&item));
        self.survives_all.insert(place(&item));
    }

    pub(super) fn committed(&mut self, items: &[SourceItem]) {
        items.iter().for_each(|item| self.survives_all(*item));
    }

    fn power_was_lost(&mut self) {
        self.power_was_lost = true;
        self.survives_death.clone_from(&self.survives_all);
    }

    fn found(&mut self, found: BTreeSet<ItemPlace>) -> Result<(), Stop> {
        if self.is_strict
            && let Some(lost) = self.survives_death.difference(&found).next()
        {
            return Err(Stop::broken(format!("L19: {lost:?} was durable and is lost")));
        }
        if std::mem::take(&mut self.power_was_lost) {
            self.survives_all.clone_from(&found);
        }
        self.survives_death = found;
        Ok(())
    }
}

fn place(item: &SourceItem) -> ItemPlace {
    (item.segment, item.index)
}
