//! The ledger as a whole, on the store in memory.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::chain::tests::stream;
use super::*;
use crate::item::{ItemIndex, JobId, SegmentIndex};

pub(super) fn ledger(store: &MemoryStore) -> Ledger {
    Ledger::new(Arc::new(store.clone()), JobId::new([1; 32]), "w1")
}

pub(super) fn planned(store: &MemoryStore) -> SegmentLedger {
    let ledger = ledger(store);
    ledger.open_or_create_job(&json!({"input": "a.mp4"})).unwrap();
    let plan = ledger.fix_plan(&json!({"crf": 18})).unwrap().value;
    ledger.segments(&plan)
}

pub(super) fn key(name: &str) -> String {
    format!("{}{name}", keys::job_prefix(&JobId::new([1; 32])))
}

fn output() -> PublishedOutput {
    PublishedOutput { output: "out.mp4".to_owned(), bytes: 3, blake3: Digest::of(b"out"), items: 2 }
}

#[test]
fn the_first_plan_stands() {
    let store = MemoryStore::new();
    let ledger = ledger(&store);
    assert_eq!(ledger.plan().unwrap(), None);
    let first = ledger.fix_plan(&json!({"crf": 18})).unwrap();
    let second = ledger.fix_plan(&json!({"crf": 20})).unwrap();
    assert_eq!((first.creation, second.creation), (Creation::Created, Creation::Exists));
    assert_eq!(first.value, second.value);
    assert!(second.value.says(&json!({"crf": 18})));
    assert_eq!(ledger.plan().unwrap(), Some(first.value));
}

#[test]
fn a_damaged_plan_gives_way_and_its_segments_become_foreign() {
    let store = MemoryStore::new();
    let header = &stream(&[1, 1])[0];
    planned(&store).commit(header, b"packets").unwrap();
    store.overwrite(&key("plan.json"), b"{}".to_vec());
    assert_eq!(ledger(&store).plan().unwrap(), None);
    let plan = ledger(&store).fix_plan(&json!({"crf": 20})).unwrap();
    assert_eq!(plan.generation.0, 1);
    let segments = ledger(&store).segments(&plan.value);
    assert_eq!(segments.scan().unwrap().foreign(), 1);
    assert_eq!(segments.commit(header, b"others").unwrap().generation.0, 1);
    assert_eq!(segments.load(SegmentIndex(0)).unwrap().payload, b"others");
}

#[test]
fn a_segment_is_committed_once_and_an_equal_one_is_success() {
    let store = MemoryStore::new();
    let segments = planned(&store);
    let header = &stream(&[3])[0];
    assert_eq!(segments.commit(header, b"packets").unwrap().creation, Creation::Created);
    let zombie = SegmentHeader { writer: "zombie".to_owned(), ..header.clone() };
    let standing = segments.commit(&zombie, b"packets").unwrap();
    assert_eq!((standing.creation, standing.value), (Creation::Exists, header.clone()));
    let loaded = segments.load(SegmentIndex(0)).unwrap();
    assert_eq!((loaded.header, loaded.payload), (header.clone(), b"packets".to_vec()));
    assert!(segments.scan().unwrap().todo().unwrap().is_complete());
}

#[test]
fn a_segment_that_came_out_otherwise_is_a_contradiction() {
    let store = MemoryStore::new();
    let segments = planned(&store);
    let header = &stream(&[3])[0];
    segments.commit(header, b"packets").unwrap();
    let other = SegmentHeader { items: 4, ..header.clone() };
    assert_eq!(segments.commit(&other, b"x").unwrap_err().kind(), LedgerErrorKind::Contradiction);
    let faulty = SegmentHeader { items: 0, ..header.clone() };
    assert_eq!(segments.commit(&faulty, b"x").unwrap_err().kind(), LedgerErrorKind::Contradiction);
}

#[test]
fn a_segment_under_the_name_of_another_is_foreign() {
    let store = MemoryStore::new();
    let segments = planned(&store);
    segments.commit(&stream(&[1, 1])[0], b"packets").unwrap();
    store.overwrite(&key("s/1/seg"), store.get(&key("s/0/seg")).unwrap().unwrap());
    let scan = segments.scan().unwrap();
    assert_eq!((scan.finished.len(), scan.foreign(), scan.damaged()), (1, 1, 0));
    assert!(matches!(segments.load(SegmentIndex(1)), Err(LedgerError::Missing { .. })));
}

#[test]
fn garbage_goes_only_after_the_output_is_on_record() {
    let store = MemoryStore::new();
    let segments = planned(&store);
    let ledger = ledger(&store);
    segments.commit(&stream(&[2])[0], b"packets").unwrap();
    ledger.begin_attempt(SegmentIndex(0), 0, false).unwrap();
    assert!(matches!(ledger.collect_garbage(), Err(LedgerError::NotPublished(_))));
    ledger.intend(&output()).unwrap();
    assert!(matches!(ledger.collect_garbage(), Err(LedgerError::NotPublished(_))));
    ledger.record_out(&output()).unwrap();
    assert_eq!(ledger.collect_garbage().unwrap().objects, 2);
    assert_eq!(ledger.collect_garbage().unwrap().objects, 0);
    let left: Vec<String> = store.list("").unwrap().into_iter().map(|entry| entry.key).collect();
    assert_eq!(left, [key("job.json"), key("out.json"), key("plan.json"), key("publish.json")]);
    assert_eq!(ledger.out().unwrap(), Some(output()));
    assert_eq!(Ledger::jobs(&store).unwrap(), [JobId::new([1; 32])]);
    ledger.forget().unwrap();
    assert_eq!(store.list("").unwrap(), []);
}

#[test]
fn outputs_and_intents_are_on_record_once_each() {
    let store = MemoryStore::new();
    let ledger = ledger(&store);
    let other = PublishedOutput { bytes: 4, ..output() };
    for out in [output(), output(), other.clone(), other.clone()] {
        ledger.intend(&out).unwrap();
        ledger.record_out(&out).unwrap();
    }
    assert_eq!(ledger.intents().unwrap(), [output(), other.clone()]);
    assert_eq!(ledger.out().unwrap(), Some(other.clone()));
    store.overwrite(&key("out.json.1"), b"torn".to_vec());
    assert_eq!(ledger.out().unwrap(), Some(output()));
    ledger.record_out(&other).unwrap();
    assert_eq!(ledger.out().unwrap(), Some(other));
}

#[test]
fn a_quarantine_is_recorded_and_lifted_with_its_history() {
    let store = MemoryStore::new();
    let ledger = ledger(&store);
    let k = SegmentIndex(4);
    let failed = AttemptEnd::Failed { message: "bad".to_owned(), items: vec![ItemIndex(3)] };
    for number in 1..=3 {
        assert_eq!(ledger.history(k).unwrap().verdict(0, |_| false), Verdict::Run);
        assert_eq!(ledger.begin_attempt(k, 0, false).unwrap(), number);
        ledger.end_attempt(k, number, &failed).unwrap();
        ledger.end_attempt(k, number, &AttemptEnd::Preempted).unwrap();
    }
    let Verdict::Quarantined(quarantine) = ledger.history(k).unwrap().verdict(0, |_| false) else { panic!() };
    assert_eq!((quarantine.message.as_str(), &quarantine.items[..]), ("bad", &[ItemIndex(3)][..]));
    ledger.quarantine(k, &quarantine).unwrap();
    assert_eq!(ledger.histories().unwrap()[&k].quarantine, Some(quarantine));
    assert_eq!(ledger.lift_quarantines().unwrap(), [k]);
    assert_eq!(ledger.histories().unwrap().len(), 0);
    assert_eq!(ledger.lift_quarantines().unwrap(), []);
}

#[test]
fn a_damaged_quarantine_still_holds() {
    let store = MemoryStore::new();
    store.overwrite(&key("s/4/dead"), b"torn".to_vec());
    let history = ledger(&store).history(SegmentIndex(4)).unwrap();
    assert!(matches!(history.verdict(0, |_| false), Verdict::Quarantined(_)));
}

#[test]
fn of_racing_writers_exactly_one_creates_and_all_agree() {
    for round in 0..50 {
        let store = MemoryStore::new();
        let header = &stream(&[2])[0];
        if round % 2 == 1 {
            store.overwrite(&key("s/0/seg"), b"torn".to_vec());
        }
        let race = |n: usize| {
            let ledger = Ledger::new(Arc::new(store.clone()), JobId::new([1; 32]), format!("w{n}"));
            let plan = ledger.fix_plan(&json!({"writer": n})).unwrap();
            let mine = SegmentHeader { writer: format!("w{n}"), ..header.clone() };
            (plan.clone(), ledger.segments(&plan.value).commit(&mine, b"packets").unwrap())
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let race = &race;
            let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || race(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winners = |creations: Vec<Creation>| creations.iter().filter(|c| **c == Creation::Created).count();
        assert_eq!(winners(results.iter().map(|(plan, _)| plan.creation).collect()), 1);
        assert_eq!(winners(results.iter().map(|(_, segment)| segment.creation).collect()), 1);
        for (plan, segment) in &results {
            assert_eq!((&plan.value, &segment.value), (&results[0].0.value, &results[0].1.value));
            assert_eq!(segment.generation.0, round % 2);
        }
    }
}

proptest! {
    /// L11, L13: an altered segment is never accepted, stays where it is, and its work is done again
    /// as the next generation.
    #[test]
    fn altered_segments_are_redone(
        payload in proptest::collection::vec(any::<u8>(), 0..100),
        place in any::<proptest::sample::Index>(),
        bit in 0..8_u8,
        cut in any::<bool>(),
    ) {
        let store = MemoryStore::new();
        let segments = planned(&store);
        let headers = stream(&[1, 2, 3]);
        for header in &headers {
            segments.commit(header, &payload).unwrap();
        }
        let mut bytes = store.get(&key("s/1/seg")).unwrap().unwrap();
        let place = place.index(bytes.len());
        if cut { bytes.truncate(place) } else { bytes[place] ^= 1 << bit }
        store.overwrite(&key("s/1/seg"), bytes.clone());

        let scan = segments.scan().unwrap();
        prop_assert_eq!((scan.damaged(), scan.finished.len()), (1, 2));
        prop_assert!(segments.load(SegmentIndex(1)).is_err(), "an altered object was read");
        let todo = scan.todo().unwrap();
        prop_assert_eq!(todo.runs.len(), 1);
        prop_assert_eq!(todo.runs[0].first, Some(SegmentIndex(1)));

        let again = segments.commit(&headers[1], &payload).unwrap();
        prop_assert_eq!((again.creation, again.generation.0), (Creation::Created, 1));
        prop_assert_eq!(store.get(&key("s/1/seg")).unwrap().unwrap(), bytes);
        prop_assert!(segments.scan().unwrap().todo().unwrap().is_complete());
        prop_assert_eq!(segments.load(SegmentIndex(1)).unwrap().payload, payload);
    }
}
