//! Packs through the ledger, on stores with and without logs.

use std::sync::Arc;
use std::time::Duration;

use super::chain::tests::stream;
use super::tests::{key, ledger, planned};
use super::*;
use crate::clock::ManualClock;
use crate::item::{ItemIndex, SegmentIndex};

/// What an object store is: no logs.
#[derive(Clone)]
struct NoLogs(MemoryStore);

impl ObjectStore for NoLogs {
    fn create(&self, key: &str, bytes: &[u8]) -> Result<Creation, StoreError> {
        self.0.create(key, bytes)
    }
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(key)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectEntry>, StoreError> {
        self.0.list(prefix)
    }
    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.0.delete(key)
    }
}

const K: SegmentIndex = SegmentIndex(2);

fn item(n: u32) -> PackedItem {
    PackedItem { index: ItemIndex(n), pts: i64::from(n) * 40, source: SourceHash(u128::from(n)) }
}

fn payload(n: u32) -> Vec<u8> {
    vec![n as u8; 100 + n as usize]
}

fn adopted(segments: &SegmentLedger) -> Vec<u32> {
    let adopted = segments.adopt(&segments.scan().unwrap()).unwrap().remove(&K).unwrap_or_default();
    for (index, found) in &adopted.items {
        assert_eq!(segments.read_adopted(found).unwrap(), Some(payload(index.0)), "{index}");
    }
    adopted.items.keys().map(|index| index.0).collect()
}

fn without_logs(store: &MemoryStore) -> SegmentLedger {
    let plan = planned(store).ledger().plan().unwrap().unwrap();
    Ledger::new(Arc::new(NoLogs(store.clone())), *ledger(store).job(), "w1").segments(&plan)
}

#[test]
fn items_in_a_log_are_adopted_after_a_death_and_a_cut_one_is_not() {
    let store = MemoryStore::new();
    let segments = planned(&store);
    let mut writer = segments.pack_writer(K, PackPolicy::default(), ManualClock::shared());
    for n in [4, 3, 5] {
        writer.append(&item(n), &payload(n)).unwrap();
    }
    drop(writer);
    assert_eq!(adopted(&segments), [3, 4, 5]);
    let open = key("s/2/pack-4-0-w1.open");
    let mut bytes = store.get(&open).unwrap().unwrap();
    bytes.pop();
    store.overwrite(&open, bytes);
    assert_eq!(adopted(&segments), [3, 4]);
    // The same process begins again at the same item: another generation, nothing overwritten.
    let mut again = segments.pack_writer(K, PackPolicy::default(), ManualClock::shared());
    again.append(&item(4), &payload(4)).unwrap();
    again.append(&item(5), &payload(5)).unwrap();
    again.seal().unwrap();
    assert_eq!(adopted(&segments), [3, 4, 5]);
    assert!(store.get(&key("s/2/pack-4-1-w1")).unwrap().is_some());
}

#[test]
fn a_log_is_synced_by_time_and_sealed_by_size() {
    let store = MemoryStore::new();
    let segments = planned(&store);
    let clock = ManualClock::shared();
    let policy = PackPolicy { pack_bytes_max: 1500, ..PackPolicy::default() };
    let mut writer = segments.pack_writer(K, policy, clock.clone());
    writer.append(&item(0), &payload(0)).unwrap();
    assert_eq!(writer.items_durable(), 0);
    clock.advance(Duration::from_secs(1));
    writer.append(&item(1), &payload(1)).unwrap();
    assert_eq!(writer.items_durable(), 2);
    for n in 2..8 {
        writer.append(&item(n), &payload(n)).unwrap();
    }
    writer.seal().unwrap();
    writer.seal().unwrap();
    assert_eq!(writer.items_durable(), 8);
    let names: Vec<_> = store.list(&key("s/2/")).unwrap().into_iter().map(|entry| entry.key).collect();
    assert!(names.len() == 2 && names.iter().all(|name| !name.ends_with(".open")), "{names:?}");
    assert_eq!(adopted(&segments), (0..8).collect::<Vec<_>>());
}

#[test]
fn without_logs_nothing_unsealed_survives_and_packs_are_sealed_by_time() {
    let store = MemoryStore::new();
    let segments = without_logs(&store);
    let clock = ManualClock::shared();
    let mut writer = segments.pack_writer(K, PackPolicy::default(), clock.clone());
    writer.append(&item(0), &payload(0)).unwrap();
    assert_eq!(adopted(&segments), [] as [u32; 0]);
    clock.advance(Duration::from_secs(5));
    writer.append(&item(1), &payload(1)).unwrap();
    assert_eq!((adopted(&segments), writer.items_durable()), (vec![0, 1], 2));
    writer.append(&item(2), &payload(2)).unwrap();
    drop(writer);
    assert_eq!(adopted(&segments), [0, 1]);
    let mut writer = segments.pack_writer(K, PackPolicy::default(), clock);
    writer.append(&item(2), &payload(2)).unwrap();
    writer.seal().unwrap();
    assert_eq!(adopted(&segments), [0, 1, 2]);
}

#[test]
fn packs_of_other_segments_and_plans_are_passed_over() {
    let store = MemoryStore::new();
    let segments = planned(&store);
    let mut writer = segments.pack_writer(SegmentIndex(7), PackPolicy::default(), ManualClock::shared());
    writer.append(&item(0), &payload(0)).unwrap();
    writer.seal().unwrap();
    let bytes = store.get(&key("s/7/pack-0-0-w1")).unwrap().unwrap();
    store.overwrite(&key("s/2/pack-0-0-w1"), bytes.clone());
    store.overwrite(&key("s/2/pack-1-0-w1"), bytes[..50].to_vec());
    let found = segments.adopt(&Scan::default()).unwrap();
    assert_eq!((found[&SegmentIndex(7)].items.len(), found[&K].items.len()), (1, 0));
    assert!(matches!(found[&K].rejected[0].1, Rejection::Foreign(_)));
    assert!(matches!(found[&K].rejected[1].1, Rejection::Damaged(_)));
}

#[test]
fn an_item_that_changes_after_adoption_is_made_again() {
    let store = MemoryStore::new();
    let segments = planned(&store);
    let mut writer = segments.pack_writer(K, PackPolicy::default(), ManualClock::shared());
    writer.append(&item(0), &payload(0)).unwrap();
    writer.seal().unwrap();
    let found = segments.adopt(&Scan::default()).unwrap();
    let name = key("s/2/pack-0-0-w1");
    let mut bytes = store.get(&name).unwrap().unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    store.overwrite(&name, bytes);
    let item = &found[&K].items[&ItemIndex(0)];
    assert_eq!(segments.read_adopted(item).unwrap(), None);
    store.delete(&name).unwrap();
    assert_eq!(segments.read_adopted(item).unwrap(), None);
}

#[test]
fn packs_of_finished_segments_are_ignored_and_dropped() {
    let store = MemoryStore::new();
    let segments = planned(&store);
    let header = stream(&[0, 0, 3])[0].clone();
    let mut writer = segments.pack_writer(K, PackPolicy::default(), ManualClock::shared());
    writer.append(&item(0), &payload(0)).unwrap();
    segments.commit(&header, b"packets").unwrap();
    assert_eq!(adopted(&segments), [] as [u32; 0]);
    assert_eq!(segments.drop_packs(K).unwrap().objects, 1);
    assert_eq!(segments.scan().unwrap().finished.len(), 1);
}

#[test]
fn segments_that_finish_in_time_need_no_packs() {
    let policy = PackPolicy::default();
    assert!(!policy.wants_packs(60, Duration::from_millis(16)));
    assert!(policy.wants_packs(60, Duration::from_millis(160)));
}
