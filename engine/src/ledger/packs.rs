//! Writing packs while a segment is scored, and adopting what an earlier process left of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::digest::Digest;
use super::error::LedgerError;
use super::generation::create_own;
use super::keys::{self, ObjectName, PackName};
use super::ledger::Garbage;
use super::object::Rejection;
use super::pack::{PackHeader, PackSeal, PackedItem, frame_item, framed_bytes, open_item, pack_head, read_pack};
use super::segments::{Scan, SegmentLedger};
use super::store::{Creation, ObjectLog, ObjectStore, StoreError, StoreErrorKind};
use crate::clock::Clock;
use crate::item::{Generation, ItemIndex, SegmentIndex};

/// When items become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackPolicy {
    /// How much scoring may be lost: a store without logs seals this often, and segments that take
    /// less than this go without packs.
    pub loss_max: Duration,
    /// How often a log is synced: what a power loss may take. A killed process loses none of it.
    pub sync_every: Duration,
    /// Size at which a pack is sealed and the next begun; also the memory it takes on a store
    /// without logs, and on adoption.
    pub pack_bytes_max: u64,
}

impl Default for PackPolicy {
    /// 5 s, 1 s, 64 MiB.
    fn default() -> Self {
        Self { loss_max: Duration::from_secs(5), sync_every: Duration::from_secs(1), pack_bytes_max: 64 << 20 }
    }
}

impl PackPolicy {
    /// Whether segments of about `items` items, scored at `item` each, are worth packing.
    pub fn wants_packs(&self, items: u32, item: Duration) -> bool {
        item.saturating_mul(items) > self.loss_max
    }
}

/// An item found in a pack, to be read when it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptedItem {
    /// The item.
    pub item: PackedItem,
    key: String,
    offset: u64,
    bytes: usize,
    seal: PackSeal,
}

/// What the packs of one segment hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Adopted {
    /// Good items.
    pub items: BTreeMap<ItemIndex, AdoptedItem>,
    /// Packs that were passed over as a whole.
    pub rejected: Vec<(String, Rejection)>,
    /// Bytes in packs that belong to no good item.
    pub bytes_lost: u64,
    /// Packs of which some items were altered and the others are good.
    pub altered: Vec<String>,
}

impl Adopted {
    /// The packs that were cut short at their head or altered, wholly or in part. One that its writer's death cut at its
    /// end is as it must be.
    pub fn damaged(&self) -> impl Iterator<Item = &str> {
        let rejected = self.rejected.iter().filter(|(_, rejection)| matches!(rejection, Rejection::Damaged(_)));
        rejected.map(|(key, _)| key.as_str()).chain(self.altered.iter().map(String::as_str))
    }
}

impl SegmentLedger {
    /// Finds the good items in the packs of every segment that is not finished. Holds one pack in
    /// memory at a time.
    pub fn adopt(&self, scan: &Scan) -> Result<BTreeMap<SegmentIndex, Adopted>, LedgerError> {
        let ledger = &self.ledger;
        let mut adopted: BTreeMap<SegmentIndex, Adopted> = BTreeMap::new();
        for entry in ledger.store.list(&format!("{}s/", keys::job_prefix(&ledger.job)))? {
            let segment = match ObjectName::parse(&ledger.job, &entry.key) {
                Some(ObjectName::Pack(segment, _) | ObjectName::OpenPack(segment, _)) => segment,
                _ => continue,
            };
            if scan.finished.contains_key(&segment) {
                continue;
            }
            if let Some(bytes) = ledger.store.get(&entry.key)? {
                adopted.entry(segment).or_default().add(segment, &entry.key, &bytes, &self.plan);
            }
        }
        Ok(adopted)
    }

    /// Reads an adopted item again; `None` where it is gone or no longer what it was, and must be
    /// made again.
    pub fn read_adopted(&self, adopted: &AdoptedItem) -> Result<Option<Vec<u8>>, LedgerError> {
        let entry = self.ledger.store.get_range(&adopted.key, adopted.offset, adopted.bytes)?;
        Ok(entry.and_then(|entry| Some(open_item(&entry, &adopted.seal, &adopted.item)?.to_vec())))
    }

    /// A writer for the items of a segment that is about to be scored.
    pub fn pack_writer(&self, segment: SegmentIndex, policy: PackPolicy, clock: Arc<dyn Clock>) -> PackWriter {
        PackWriter { segments: self.clone(), segment, policy, clock, open: None, items_durable: 0 }
    }

    /// Removes the packs of a segment, once its commit made them worthless: they hold whole items and
    /// would otherwise grow to many times the output.
    pub fn drop_packs(&self, segment: SegmentIndex) -> Result<Garbage, LedgerError> {
        self.ledger.remove(&format!("{}pack-", keys::segment_prefix(&self.ledger.job, segment)))
    }
}

impl Adopted {
    fn add(&mut self, segment: SegmentIndex, key: &str, bytes: &[u8], plan: &Digest) {
        let pack = match read_pack(bytes, plan) {
            Ok(pack) if pack.header.segment == segment => pack,
            Ok(pack) => {
                let what = format!("pack of segment {}, expected {segment}", pack.header.segment);
                return self.rejected.push((key.to_owned(), Rejection::Foreign(what)));
            }
            Err(rejection) => return self.rejected.push((key.to_owned(), rejection)),
        };
        self.bytes_lost += pack.bytes_lost as u64;
        if pack.bytes_altered > 0 {
            self.altered.push(key.to_owned());
        }
        for placed in pack.items {
            let adopted = AdoptedItem {
                item: placed.item,
                key: key.to_owned(),
                offset: placed.place.start as u64,
                bytes: placed.place.len(),
                seal: pack.seal,
            };
            self.items.entry(placed.item.index).or_insert(adopted);
        }
    }
}

/// Puts finished items of one segment into packs. Belongs to the thread that consumes the items.
///
/// After an error the open pack is left as it is, what of it is good will be adopted, and the next
/// item begins another. A log that cannot be synced or sealed for want of room is left in the same way
/// and is no error: it outlives the process, and the next write is where room is waited for. Dropping the
/// writer does the same: only [`PackWriter::seal`] makes the last items durable against a power loss, or
/// at all on a store without logs.
pub struct PackWriter {
    segments: SegmentLedger,
    segment: SegmentIndex,
    policy: PackPolicy,
    clock: Arc<dyn Clock>,
    open: Option<OpenPack>,
    items_durable: u64,
}

struct OpenPack {
    name: PackName,
    seal: PackSeal,
    body: PackBody,
    bytes: u64,
    /// Items not yet durable, and since when the oldest of them waits.
    items_waiting: u64,
    waiting_since: Duration,
}

/// Where the bytes of an open pack are.
enum PackBody {
    /// In a log that grows in the store.
    Log(Box<dyn ObjectLog>),
    /// In memory, until they are sealed as one object.
    Buffer(Vec<u8>),
}

impl PackWriter {
    /// Adds a finished item. Blocks on the store; durable as the policy says.
    pub fn append(&mut self, item: &PackedItem, payload: &[u8]) -> Result<(), LedgerError> {
        let mut pack = match self.open.take() {
            Some(pack) => pack,
            None => self.begin(item.index)?,
        };
        pack.add(item, payload, self.clock.now())?;
        let waited = self.clock.now().saturating_sub(pack.waiting_since);
        let full = pack.bytes >= self.policy.pack_bytes_max;
        match &mut pack.body {
            PackBody::Log(_) if full => self.close(pack),
            PackBody::Buffer(_) if full || waited >= self.policy.loss_max => self.close(pack),
            PackBody::Log(log) if waited >= self.policy.sync_every => {
                if had_room(log.sync())?.is_some() {
                    self.items_durable += std::mem::take(&mut pack.items_waiting);
                    self.open = Some(pack);
                }
                Ok(())
            }
            _ => {
                self.open = Some(pack);
                Ok(())
            }
        }
    }

    /// Seals the open pack, if there is one: at a drain, or before the segment's commit is attempted
    /// on a store that may refuse it.
    pub fn seal(&mut self) -> Result<(), LedgerError> {
        match self.open.take() {
            Some(pack) => self.close(pack),
            None => Ok(()),
        }
    }

    /// Items that survive a loss of power by now.
    pub fn items_durable(&self) -> u64 {
        self.items_durable
    }

    fn begin(&self, first: ItemIndex) -> Result<OpenPack, LedgerError> {
        let ledger = &self.segments.ledger;
        let header = PackHeader { segment: self.segment, first, writer: ledger.writer.clone() };
        let (head, seal) =
            pack_head(&self.segments.plan, &header).map_err(|error| LedgerError::Body(error.to_string()))?;
        let mut name = PackName { first: first.0, generation: Generation(0), writer: header.writer };
        let body = loop {
            match ledger.store.open_log(&ObjectName::OpenPack(self.segment, name.clone()).key(&ledger.job)) {
                Ok(Some(mut log)) => {
                    log.append(&head)?;
                    break PackBody::Log(log);
                }
                Ok(None) => break PackBody::Buffer(head.clone()),
                Err(error) if error.kind() == StoreErrorKind::Exists => name.generation = name.generation.next(),
                Err(error) => return Err(error.into()),
            }
        };
        Ok(OpenPack { name, seal, body, bytes: head.len() as u64, items_waiting: 0, waiting_since: Duration::ZERO })
    }

    fn close(&mut self, pack: OpenPack) -> Result<(), LedgerError> {
        let store: &dyn ObjectStore = &*self.segments.ledger.store;
        let job = self.segments.ledger.job;
        let key = |name: &PackName| ObjectName::Pack(self.segment, name.clone()).key(&job);
        let OpenPack { mut name, body, items_waiting, .. } = pack;
        match body {
            // A sealed pack of this name stands: the log keeps its open name, under which it is
            // adopted just as well.
            PackBody::Log(log) => {
                if had_room(log.seal(&key(&name)))?.is_none() {
                    return Ok(());
                }
            }
            PackBody::Buffer(bytes) => {
                while create_own(store, &key(&name), &bytes)? == Creation::Exists {
                    name.generation = name.generation.next();
                }
            }
        }
        self.items_durable += items_waiting;
        Ok(())
    }
}

/// `None` where there was no room.
fn had_room<T>(done: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match done {
        Err(error) if error.kind() == StoreErrorKind::DiskFull => {
            tracing::debug!(%error, "no room to make a pack durable; what is in it outlives this process");
            Ok(None)
        }
        done => done.map(Some),
    }
}

impl OpenPack {
    fn add(&mut self, item: &PackedItem, payload: &[u8], now: Duration) -> Result<(), StoreError> {
        let (head, digest) = frame_item(&self.seal, item, payload);
        match &mut self.body {
            // One call for the whole item: a call is handed to another thread and back, and where every core scores,
            // the wait for one costs more than copying the item.
            PackBody::Log(log) => log.append(&[&head[..], payload, &digest[..]].concat())?,
            PackBody::Buffer(buffer) => {
                [&head[..], payload, &digest[..]].into_iter().for_each(|part| buffer.extend_from_slice(part));
            }
        }
        if self.items_waiting == 0 {
            self.waiting_since = now;
        }
        self.items_waiting += 1;
        self.bytes += framed_bytes(payload.len() as u64);
        Ok(())
    }
}
