//! One pass over what is missing: a decoder, scorers and encoders, one turn at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::process::Stop;
use super::stream::{SourceItem, score};
use super::world::World;
use crate::credit::{CreditLimit, Credits};
use crate::item::{Item, ItemId, ItemIndex, SegmentIndex};
use crate::lease::{Blame, Lease};
use crate::ledger::{
    Adopted, Anchor, AttemptEnd, PackPolicy, PackWriter, PackedItem, PassScope, Resume, Run, SegmentHeader,
    SegmentLedger,
};
use crate::reorder::Reorder;
use crate::steal::{Member, Pool, PoolConfig};

/// How long a scorer may stand still before it is given up.
const HANG_AFTER: Duration = Duration::from_secs(1);
/// How long a node stays away after its worker ended.
const RETURN_AFTER: Duration = Duration::from_millis(300);

/// What a pass starts from.
pub(super) struct Order {
    pub(super) scope: PassScope,
    pub(super) runs: Vec<Run>,
    pub(super) adopted: BTreeMap<SegmentIndex, Adopted>,
    pub(super) items_finished: u64,
}

/// An item on its way to its encoder.
struct ScoredItem {
    item: SourceItem,
    payload: Vec<u8>,
    /// It came from a pack and need not go into one again.
    is_adopted: bool,
}

pub(super) struct Pass {
    segments: SegmentLedger,
    order: Order,
    decoder: Decoder,
    credits: Credits,
    pool: Pool<SourceItem>,
    workers: Vec<Worker>,
    zombies: Vec<Zombie>,
    open: BTreeMap<SegmentIndex, OpenSegment>,
    workers_born: u64,
}

/// Where the decoder stands.
struct Decoder {
    /// Which run, and which item of the stream comes next in it; `None` before it was begun.
    run: usize,
    next: Option<usize>,
    /// The last segment that is not empty before the next item.
    previous: Option<SegmentIndex>,
}

/// A scorer's node.
enum Worker {
    /// Nobody until then.
    Away { until: Duration },
    /// Looking for work.
    Idle(Member<SourceItem>),
    /// Scoring until then.
    Busy { member: Member<SourceItem>, leases: Vec<Lease<SourceItem>>, until: Duration },
    /// Standing still since then.
    Hung { member: Member<SourceItem>, leases: Vec<Lease<SourceItem>>, since: Duration },
}

/// A given-up scorer that goes on later and believes it holds its leases.
struct Zombie {
    leases: Vec<Lease<SourceItem>>,
    wakes: Duration,
}

struct OpenSegment {
    attempt: u32,
    previous: Option<SegmentIndex>,
    reorder: Reorder<Item<ScoredItem>>,
    items_decoded: u32,
    /// Set once its last item was decoded: the next segment that is not empty.
    closed: Option<Option<SegmentIndex>>,
    encoded: Vec<SourceItem>,
    payload: Vec<u8>,
    pack: Option<PackWriter>,
    /// Packed and not yet durable.
    waiting: Vec<SourceItem>,
    /// What the pack writer said was durable when it was last asked.
    items_durable: u64,
}

/// What a turn of a pass came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is more to do.
    Goes,
    /// Everything in its scope is finished.
    Over,
    /// It failed partly; what is finished stands.
    Broken,
}

impl Pass {
    pub(super) fn new(segments: SegmentLedger, order: Order, world: &World) -> Pass {
        let clock = world.clock();
        let workers = (0..world.profile.workers).map(|_| Worker::Away { until: Duration::ZERO }).collect();
        Pass {
            segments,
            order,
            decoder: Decoder { run: 0, next: None, previous: None },
            credits: Credits::new(CreditLimit { items: world.profile.credits, bytes: u64::MAX }),
            pool: Pool::new(PoolConfig::default(), clock),
            workers,
            zombies: Vec::new(),
            open: BTreeMap::new(),
            workers_born: 0,
        }
    }

    pub(super) fn scope(&self) -> &PassScope {
        &self.order.scope
    }

    /// Lets one part of the pass act.
    pub(super) fn turn(&mut self, world: &mut World) -> Result<Turn, Stop> {
        let parts = 2 + self.workers.len() + self.open.len();
        let part = world.random.below(parts as u64) as usize;
        match part {
            0 => self.decode(world)?,
            1 => self.supervise(world)?,
            _ if part < 2 + self.workers.len() => self.work(part - 2, world)?,
            _ => {
                let open = self.open.keys().nth(part - 2 - self.workers.len()).copied();
                self.encode(open.expect("counted above"), world)?;
            }
        }
        if self.fail_poisoned(world)? {
            return Ok(Turn::Broken);
        }
        let is_over = self.decoder.run == self.order.runs.len() && self.open.is_empty();
        Ok(if is_over { Turn::Over } else { Turn::Goes })
    }

    /// Explains every open attempt, and seals the packs if there is time for that.
    pub(super) fn end(&mut self, how: &AttemptEnd, seals: bool, world: &mut World) -> Result<(), Stop> {
        for (segment, open) in &mut self.open {
            if seals && let Some(pack) = &mut open.pack {
                // A pack that cannot be sealed costs its items, and no more.
                let sealed = pack.seal().is_ok();
                open.note_durable(sealed, world);
            }
            self.segments.ledger().end_attempt(*segment, open.attempt, how)?;
        }
        Ok(())
    }

    // --- decoder ---

    fn decode(&mut self, world: &mut World) -> Result<(), Stop> {
        let Some(run) = self.order.runs.get(self.decoder.run).copied() else { return Ok(()) };
        let Some(next) = self.decoder.next else { return self.begin_run(&run, world) };
        let item = world.stream.items.get(next).copied();
        let Some(item) = item.filter(|item| Some(item.segment) != run.stop_at) else {
            return self.end_run(&run, item.map(|item| item.segment), world);
        };
        if self.decoder.previous != Some(item.segment) {
            self.close(self.decoder.previous, Some(item.segment));
        }
        if self.order.scope.makes(item.segment) && !self.admit(item, world)? {
            return Ok(());
        }
        self.decoder.previous = Some(item.segment);
        self.decoder.next = Some(next + 1);
        Ok(())
    }

    /// L12: what the ledger says about a run must be what the stream is.
    fn begin_run(&mut self, run: &Run, world: &World) -> Result<(), Stop> {
        let next = match run.resume {
            Resume::Start => 0,
            Resume::After(Anchor { pts, hash, .. }) => {
                1 + world.stream.find(pts, hash).ok_or_else(|| Stop::broken("an anchor is not in the stream"))?
            }
        };
        let first = world.stream.items.get(next).map(|item| item.segment);
        if first.is_none()
            || run.first.is_some() && run.first != first
            || run.first_item.is_some_and(|at| at != next as u64)
        {
            return Err(Stop::broken(format!("run {run:?} begins at {next} with {first:?}")));
        }
        let previous = next.checked_sub(1).map(|before| world.stream.items[before].segment);
        self.decoder = Decoder { run: self.decoder.run, next: Some(next), previous };
        Ok(())
    }

    fn end_run(&mut self, run: &Run, next: Option<SegmentIndex>, world: &mut World) -> Result<(), Stop> {
        if next != run.stop_at || run.last.is_some() && run.last != self.decoder.previous {
            return Err(Stop::broken(format!("run {run:?} ends after {:?} before {next:?}", self.decoder.previous)));
        }
        self.close(self.decoder.previous, next);
        self.decoder = Decoder { run: self.decoder.run + 1, next: None, previous: None };
        world.note(|| "a run was decoded".to_owned());
        Ok(())
    }

    fn close(&mut self, segment: Option<SegmentIndex>, next: Option<SegmentIndex>) {
        if let Some(open) = segment.and_then(|segment| self.open.get_mut(&segment)) {
            open.closed = Some(next);
        }
    }

    /// Sends an item on its way if there is room for it.
    fn admit(&mut self, item: SourceItem, world: &mut World) -> Result<bool, Stop> {
        if !self.open.contains_key(&item.segment) && !self.open_segment(item, world)? {
            return Ok(false);
        }
        let Some(credit) = self.credits.try_acquire(1) else { return Ok(false) };
        let id = ItemId { segment: item.segment, index: item.index };
        let adopted = self.order.adopted.get(&item.segment).and_then(|adopted| adopted.items.get(&item.index));
        let adopted = match adopted.filter(|adopted| adopted.item == packed(&item)) {
            Some(adopted) => self.segments.read_adopted(adopted)?,
            None => None,
        };
        let open = self.open.get_mut(&item.segment).expect("opened above");
        open.items_decoded += 1;
        match adopted {
            Some(payload) => {
                world.books.adopted(item, &payload)?;
                deliver(open, Item::new(id, ScoredItem { item, payload, is_adopted: true }, credit))?;
            }
            None => {
                world.books.sent_to_scorers(item)?;
                self.pool.push(Item::new(id, item, credit)).map_err(|_| Stop::broken("the pool is closed"))?;
            }
        }
        Ok(true)
    }

    fn open_segment(&mut self, first: SourceItem, world: &mut World) -> Result<bool, Stop> {
        let alone = matches!(self.order.scope, PassScope::Alone(_));
        let open_max = if alone { 1 } else { world.profile.segments_open_max };
        if self.open.len() >= open_max {
            return Ok(false);
        }
        let ledger = self.segments.ledger();
        let attempt = ledger.begin_attempt(first.segment, self.order.items_finished, alone)?;
        let pack = world
            .profile
            .has_packs
            .then(|| self.segments.pack_writer(first.segment, PackPolicy::default(), world.clock()));
        let open = OpenSegment {
            attempt,
            previous: self.decoder.previous,
            reorder: Reorder::new(ItemIndex(0), world.profile.credits),
            items_decoded: 0,
            closed: None,
            encoded: Vec::new(),
            payload: Vec::new(),
            pack,
            waiting: Vec::new(),
            items_durable: 0,
        };
        world.note(|| format!("{} is attempted for the {attempt}. time, alone: {alone}", first.segment));
        self.open.insert(first.segment, open);
        Ok(true)
    }

    // --- scorers ---

    fn work(&mut self, node: usize, world: &mut World) -> Result<(), Stop> {
        let now = world.now();
        let worker = std::mem::replace(&mut self.workers[node], Worker::Away { until: now });
        self.workers[node] = match worker {
            Worker::Away { until } if until <= now => {
                self.workers_born += 1;
                Worker::Idle(self.pool.join(format!("{node}.{}", self.workers_born)))
            }
            Worker::Idle(member) => match member.take_now(world.profile.batch_items_max, &|_, _| true) {
                Some(leases) => {
                    let until = now + Duration::from_millis(20 + world.random.below(180));
                    Worker::Busy { member, leases, until }
                }
                None => Worker::Idle(member),
            },
            Worker::Busy { member, leases, until } if until <= now => {
                for lease in leases {
                    self.finish(lease, world)?;
                }
                Worker::Idle(member)
            }
            waiting => waiting,
        };
        Ok(())
    }

    fn finish(&mut self, lease: Lease<SourceItem>, world: &mut World) -> Result<(), Stop> {
        let item = *lease;
        match world.effect_of(&item) {
            Effect::Poison => {
                lease.fail("poison");
                Ok(())
            }
            Effect::Lethal => {
                world.note(|| format!("{item:?} kills its process"));
                Err(Stop::Died)
            }
            Effect::Scored => {
                let payload = score(item.source);
                let scored = ScoredItem { item, payload, is_adopted: false };
                let done = lease.commit(scored).map_err(|_| Stop::broken("a scorer in good standing was revoked"))?;
                world.books.scored(item);
                match self.open.get_mut(&item.segment) {
                    Some(open) => deliver(open, done),
                    None => Ok(()),
                }
            }
        }
    }

    /// Gives up scorers that stand still, and lets zombies wake.
    fn supervise(&mut self, world: &mut World) -> Result<(), Stop> {
        let now = world.now();
        for node in 0..self.workers.len() {
            if !matches!(&self.workers[node], Worker::Hung { since, .. } if *since + HANG_AFTER <= now) {
                continue;
            }
            let given_up = std::mem::replace(&mut self.workers[node], Worker::Away { until: now + RETURN_AFTER });
            let Worker::Hung { member, leases, .. } = given_up else { unreachable!("looked at above") };
            member.revoker().revoke(Blame::Item("hung".to_owned()));
            let wakes = now + Duration::from_millis(world.random.below(3000));
            self.zombies.push(Zombie { leases, wakes });
        }
        while let Some(place) = self.zombies.iter().position(|zombie| zombie.wakes <= now) {
            for lease in self.zombies.swap_remove(place).leases {
                let item = *lease;
                if lease.commit(score(item.source)).is_ok() {
                    return Err(Stop::broken(format!("L1: a zombie committed {item:?}")));
                }
            }
        }
        Ok(())
    }

    /// A fault of one scorer; false if there is none it could strike.
    pub(super) fn strike(&mut self, how: Strike, world: &mut World) -> bool {
        let now = world.now();
        let node = world.random.below(self.workers.len() as u64) as usize;
        let worker = std::mem::replace(&mut self.workers[node], Worker::Away { until: now + RETURN_AFTER });
        let (member, leases) = match worker {
            Worker::Idle(member) => (member, Vec::new()),
            Worker::Busy { member, leases, .. } => (member, leases),
            other => {
                self.workers[node] = other;
                return false;
            }
        };
        match how {
            Strike::Panic => drop(leases),
            Strike::Preempt => leases.into_iter().for_each(Lease::give_back),
            Strike::Hang => self.workers[node] = Worker::Hung { member, leases, since: now },
        }
        true
    }

    /// Takes note of items that failed too often; true if there is one, which ends the pass.
    fn fail_poisoned(&mut self, world: &mut World) -> Result<bool, Stop> {
        let Ok(poisoned) = self.pool.poisoned().try_recv() else { return Ok(false) };
        let (item, credit) = poisoned.item.into_parts();
        drop(credit);
        world.note(|| format!("{item:?} is poisoned: {}", poisoned.reason));
        let Some(open) = self.open.remove(&item.segment) else { return Ok(false) };
        let end = AttemptEnd::Failed { message: poisoned.reason, items: vec![item.index] };
        self.segments.ledger().end_attempt(item.segment, open.attempt, &end)?;
        world.books.strikes += 1;
        Ok(true)
    }

    // --- encoders ---

    fn encode(&mut self, segment: SegmentIndex, world: &mut World) -> Result<(), Stop> {
        let open = self.open.get_mut(&segment).expect("it was looked up among the open");
        if let Some(done) = open.reorder.pop() {
            let (scored, credit) = done.into_parts();
            if !scored.is_adopted {
                open.pack(&scored, world);
            }
            open.payload.extend_from_slice(&scored.payload);
            open.encoded.push(scored.item);
            drop(credit);
        }
        match open.closed {
            Some(next) if open.encoded.len() as u32 == open.items_decoded => self.commit(segment, next, world),
            _ => Ok(()),
        }
    }

    fn commit(&mut self, segment: SegmentIndex, next: Option<SegmentIndex>, world: &mut World) -> Result<(), Stop> {
        let open = &self.open[&segment];
        let (Some(first), Some(last)) = (open.encoded.first(), open.encoded.last()) else {
            return Err(Stop::broken(format!("{segment} was opened and is empty")));
        };
        let header = SegmentHeader {
            segment,
            items: open.encoded.len() as u32,
            previous: open.previous,
            next,
            first_pts: first.pts,
            last_pts: last.pts,
            last_hash: last.source,
            writer: self.segments.ledger().writer().to_owned(),
        };
        self.segments.commit(&header, &open.payload)?;
        world.books.committed(&open.encoded);
        world.note(|| format!("{segment} is committed"));
        self.open.remove(&segment);
        self.segments.drop_packs(segment)?;
        Ok(())
    }
}

/// What can befall a scorer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strike {
    Panic,
    Hang,
    Preempt,
}

/// What scoring an item does.
pub(super) enum Effect {
    Scored,
    Poison,
    Lethal,
}

fn deliver(open: &mut OpenSegment, item: Item<ScoredItem>) -> Result<(), Stop> {
    let index = item.id.index;
    open.reorder.insert(index, item).map_err(|refused| Stop::broken(format!("L1: {refused}")))
}

fn packed(item: &SourceItem) -> PackedItem {
    PackedItem { index: item.index, pts: item.pts, source: item.source }
}

impl OpenSegment {
    /// Packs a scored item. A store that refuses costs the pack's durability and not the pass.
    fn pack(&mut self, scored: &ScoredItem, world: &mut World) {
        let Some(pack) = &mut self.pack else { return };
        let is_packed = pack.append(&packed(&scored.item), &scored.payload).is_ok();
        if is_packed {
            self.waiting.push(scored.item);
            if world.profile.has_logs {
                world.books.survives_death(scored.item);
            }
        }
        self.note_durable(is_packed, world);
    }

    /// Books what a call to the pack writer made durable: all that waited, or nothing.
    fn note_durable(&mut self, succeeded: bool, world: &mut World) {
        let durable = self.pack.as_ref().map_or(0, PackWriter::items_durable);
        if durable > self.items_durable {
            self.items_durable = durable;
            self.waiting.drain(..).for_each(|item| world.books.survives_all(item));
        } else if !succeeded {
            // The pack was abandoned: what a log held survives a death, and a loss of power perhaps.
            self.waiting.clear();
        }
    }
}

impl std::fmt::Debug for Pass {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Pass").field("scope", &self.order.scope).field("open", &self.open.keys()).finish()
    }
}
