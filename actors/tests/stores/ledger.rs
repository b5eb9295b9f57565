//! The work store in object stores: created once whatever happens, and a lease that is only a hint.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use restyle_actors::ledger_store::{Claimant, LeaseWatch, RemoteStore};
use restyle_engine::clock::{Clock, SystemClock};
use restyle_engine::ledger::{Creation, FaultyStore, ObjectStore, RetryPolicy, RetryStore, StoreErrorKind};
use restyle_engine::{CancelToken, JobId, ManualClock};

use crate::servers::{Proxy, Treatment};
use crate::{at, every_store, s3_access, seaweedfs};

fn open(url: &str, access: &restyle_actors::storage::Access) -> RemoteStore {
    RemoteStore::open(&at(url, access)).unwrap_or_else(|e| panic!("{url}: {e}"))
}

#[test]
fn objects_are_created_once_read_listed_and_deleted() {
    for (server, root, access) in every_store("ledger") {
        let store = open(&format!("{root}/work"), &access);
        let other = open(&format!("{root}/other/"), &access);
        other.create("jobs/a/x", b"other").unwrap();
        assert_eq!(store.create("jobs/a/s/1/seg", b"first").unwrap(), Creation::Created, "{server}");
        // The emulator of GCS ignores the condition of the resumable uploads by which conditional writes go there.
        if server != "fake-gcs-server" {
            assert_eq!(store.create("jobs/a/s/1/seg", b"second").unwrap(), Creation::Exists, "{server}");
        }
        assert_eq!(store.get("jobs/a/s/1/seg").unwrap().unwrap(), b"first", "{server}");
        assert_eq!(store.get("jobs/a/s/1/none").unwrap(), None, "{server}");
        assert_eq!(store.get_range("jobs/a/s/1/seg", 1, 3).unwrap().unwrap(), b"irs", "{server}");
        assert_eq!(store.get_range("jobs/a/s/1/seg", 3, 30).unwrap().unwrap(), b"st", "{server}");
        assert_eq!(store.get_range("jobs/a/s/1/seg", 30, 3).unwrap().unwrap(), b"", "{server}");
        assert_eq!(store.get_range("jobs/a/s/1/none", 0, 3).unwrap(), None, "{server}");
        store.create("jobs/a/s/1/seg.1", b"").unwrap();
        store.create("jobs/a/s/10/seg", b"ten").unwrap();
        let keys = |prefix| {
            let listed = store.list(prefix).unwrap_or_else(|e| panic!("{server}: {e}"));
            listed.into_iter().map(|e| format!("{}={}", e.key, e.bytes)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(keys("jobs/a/s/1/seg"), "jobs/a/s/1/seg=5 jobs/a/s/1/seg.1=0", "{server}");
        assert_eq!(keys(""), "jobs/a/s/1/seg=5 jobs/a/s/1/seg.1=0 jobs/a/s/10/seg=3", "{server}");
        assert_eq!(keys("jobs/b/"), "", "{server}");
        store.delete("jobs/a/s/1/seg").unwrap();
        store.delete("jobs/a/s/1/seg").unwrap_or_else(|e| panic!("{server}: {e}"));
        assert_eq!(store.get("jobs/a/s/1/seg").unwrap(), None, "{server}");
    }
}

#[test]
fn of_racing_creates_exactly_one_wins() {
    for (server, root, access) in every_store("race") {
        if server == "fake-gcs-server" {
            // It checks a condition and writes afterwards: as an emulator it does not race well.
            continue;
        }
        let store = open(&root, &access);
        for round in 0..8 {
            let (won, key) = (AtomicUsize::new(0), format!("race/{round}"));
            std::thread::scope(|scope| {
                for writer in 0..8_u8 {
                    let (store, key, won) = (&store, &key, &won);
                    scope.spawn(move || {
                        let policy = RetryPolicy::default();
                        let store =
                            RetryStore::cancellable(Arc::new(store.clone()), policy, writer.into(), CancelToken::new());
                        if store.create(key, &[writer; 1000]).unwrap() == Creation::Created {
                            won.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            });
            assert_eq!(won.into_inner(), 1, "{server}, round {round}");
            let content = store.get(&key).unwrap().unwrap();
            assert!(content.len() == 1000 && content.iter().all(|b| *b == content[0]), "{server}");
        }
    }
}

#[test]
fn row_13_a_create_whose_answer_is_lost_exists_to_its_author() {
    let Some(s3) = seaweedfs() else { return };
    let root = format!("s3://{}/work", s3.bucket("answers"));
    let losing =
        Proxy::start(
            s3.s3,
            |line, n| {
                if line.starts_with("PUT") && n < 2 { Treatment::LoseAnswer } else { Treatment::Pass }
            },
        );
    let store = open(&root, &s3_access(&losing.endpoint()));
    let store = RetryStore::cancellable(Arc::new(store), RetryPolicy::default(), 1, CancelToken::new());
    assert_eq!(store.create("a", b"whole").unwrap(), Creation::Exists);
    assert_eq!(store.get("a").unwrap().unwrap(), b"whole");
    assert_eq!(losing.mistreated(), 1);
}

#[test]
fn rows_11_to_14_every_operation_may_fail_before_and_after_over_a_real_server() {
    let Some(s3) = seaweedfs() else { return };
    let store = open(&format!("s3://{}/work", s3.bucket("faults")), &s3_access(&s3.endpoint()));
    let script = "create@%300=after(timeout);create@%300=before(503);get@%300=before(429);list@%300=before(409);\
                  delete@%300=after(503)";
    let faulty = FaultyStore::new(Arc::new(store.clone()), script, 5).unwrap();
    let policy = RetryPolicy { wait_first: Duration::from_millis(1), ..RetryPolicy::default() };
    let retrying = RetryStore::cancellable(Arc::new(faulty.clone()), policy, 1, CancelToken::new());
    for n in 0..20 {
        let (key, content) = (format!("k/{n}"), vec![n; 100]);
        retrying.create(&key, &content).unwrap();
        assert_eq!(retrying.get(&key).unwrap().unwrap(), content);
        assert_eq!(retrying.create(&key, b"other").unwrap(), Creation::Exists);
    }
    assert_eq!(retrying.list("k/").unwrap().len(), 20);
    for n in 0..20 {
        retrying.delete(&format!("k/{n}")).unwrap();
    }
    assert_eq!(store.list("k/").unwrap(), []);
    assert!(faulty.faults() > 20 && retrying.stats().given_up == 0, "{:?}", retrying.stats());
}

#[test]
fn row_15_a_work_store_that_hangs_is_given_up_in_time_and_holds_no_more_than_its_places() {
    let Some(s3) = seaweedfs() else { return };
    let root = format!("s3://{}/work", s3.bucket("hung"));
    let is_hung = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let switch = is_hung.clone();
    let proxy =
        Proxy::start(s3.s3, move |_, _| if switch.load(Ordering::Relaxed) { Treatment::Hang } else { Treatment::Pass });
    let mut access = s3_access(&proxy.endpoint());
    access.limits.timeout = Duration::from_secs(3);
    access.limits.concurrency_max = 2;
    let store = open(&root, &access);
    is_hung.store(true, Ordering::Relaxed);
    std::thread::scope(|scope| {
        for n in 0..6 {
            let store = &store;
            scope.spawn(move || {
                let error = store.create(&format!("k{n}"), &[0; 1 << 16]).unwrap_err();
                assert_eq!(error.kind(), StoreErrorKind::Timeout, "{error}");
            });
        }
        // Half of the time that they have.
        let (_never, ended) = std::sync::mpsc::channel::<()>();
        let _ = ended.recv_timeout(Duration::from_millis(1500));
        assert!(proxy.mistreated() <= 2, "calls beyond the places are not sent: {}", proxy.mistreated());
    });
    is_hung.store(false, Ordering::Relaxed);
    assert_eq!(store.create("k9", b"x").unwrap(), Creation::Created);
}

#[test]
fn row_15_reads_and_listings_that_hang_or_stall_are_given_up_in_time() {
    let Some(s3) = seaweedfs() else { return };
    let bucket = s3.bucket("stalled");
    let whole = vec![7; 4 << 20];
    s3.put(&bucket, "work/large", &whole);
    let treatment = Arc::new(std::sync::Mutex::new(Treatment::Pass));
    let told = treatment.clone();
    let proxy = Proxy::start(s3.s3, move |_, _| *told.lock().unwrap());
    let mut access = s3_access(&proxy.endpoint());
    access.limits.timeout = Duration::from_secs(2);
    access.limits.transfer_timeout = Duration::from_secs(2);
    let store = open(&format!("s3://{bucket}/work"), &access);
    let clock = SystemClock::new();
    let begun = clock.now();
    for (treated, what) in [(Treatment::Hang, "hangs"), (Treatment::Stall, "stalls")] {
        *treatment.lock().unwrap() = treated;
        assert_eq!(store.get("large").unwrap_err().kind(), StoreErrorKind::Timeout, "{what}");
        assert_eq!(store.list("").unwrap_err().kind(), StoreErrorKind::Timeout, "{what}");
        assert_eq!(store.get_range("large", 1, 9).unwrap_err().kind(), StoreErrorKind::Timeout, "{what}");
        assert_eq!(store.delete("large").unwrap_err().kind(), StoreErrorKind::Timeout, "{what}");
    }
    let took = clock.now().saturating_sub(begun);
    assert!(took < Duration::from_secs(100), "eight calls of two to four seconds took {took:?}");
    *treatment.lock().unwrap() = Treatment::Pass;
    s3.put(&bucket, "work/large", &whole);
    assert!(store.get("large").unwrap().unwrap() == whole);
}

#[test]
fn a_missing_bucket_and_wrong_keys_are_told_when_the_store_is_opened() {
    let Some(s3) = seaweedfs() else { return };
    let error = RemoteStore::open(&at("s3://no-such-bucket-here/w", &s3_access(&s3.endpoint()))).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotFound, "{error}");
    let mut access = s3_access(&s3.endpoint());
    access.s3.keys.as_mut().unwrap().secret_access_key = restyle_actors::storage::Secret::new("plantedsecret");
    let error = RemoteStore::open(&at(&format!("s3://{}/w", s3.bucket("keys")), &access)).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Permission, "{error}");
    assert!(!error.to_string().contains("plantedsecret"), "{error}");
}

const PATIENCE: Duration = Duration::from_secs(15);

fn claimant(name: &str, scratch: &str) -> Claimant {
    let (name, scratch) = (name.to_owned(), scratch.to_owned());
    Claimant { nonce: name.clone(), writer: name.clone(), name, scratch, patience: PATIENCE }
}

#[test]
fn a_lease_makes_others_wait_and_its_loss_is_harmless() {
    let Some(s3) = seaweedfs() else { return };
    let store = open(&format!("s3://{}/work", s3.bucket("lease")), &s3_access(&s3.endpoint()));
    let (job, cancel) = (JobId::new([3; 32]), CancelToken::new());
    let (a, b) = (claimant("process a", "here"), claimant("process b", "there"));
    let lease = store.lease_blocking(&job, &a, &cancel, |_| panic!("nobody else is here")).unwrap().unwrap();
    assert_eq!(store.try_lease(&job, &b, None).unwrap().unwrap_err(), "process a");
    // A process that has the lock of the same folder knows that the holder is dead.
    let second = store.try_lease(&job, &claimant("process c", "here"), None).unwrap().unwrap();
    drop(lease);
    assert_eq!(store.list("").unwrap().len(), 1, "a lease is left to who wrote it last");
    drop(second);
    assert_eq!(store.list("").unwrap(), []);
    let lease = store.try_lease(&job, &a, None).unwrap().unwrap();
    let (told, waiting) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let waiter = scope
            .spawn(|| store.lease_blocking(&job, &b, &cancel, |holder| told.send(holder.to_owned()).unwrap()).unwrap());
        assert_eq!(waiting.recv().unwrap(), "process a");
        drop(lease);
        assert!(waiter.join().unwrap().is_some());
    });
    let cancelled = CancelToken::new();
    cancelled.cancel();
    let kept = store.try_lease(&job, &a, None).unwrap().unwrap();
    assert!(store.lease_blocking(&job, &b, &cancelled, |_| ()).unwrap().is_none());
    drop(kept);
}

#[test]
fn leases_that_stand_still_are_told_from_those_that_change_in_one_watch() {
    let Some(s3) = seaweedfs() else { return };
    let store = open(&format!("s3://{}/work", s3.bucket("watch")), &s3_access(&s3.endpoint()));
    let [lost, held, ours] = [1, 2, 3].map(|n| JobId::new([n; 32]));
    let (dead, alive, here) = (
        claimant("dead", "far"),
        claimant("alive", "farther"),
        Claimant { writer: String::new(), ..claimant("me", "here") },
    );
    // A process that dies rewrites nothing and removes nothing.
    std::mem::forget(store.try_lease(&lost, &Claimant { patience: Duration::from_secs(9000), ..dead }, None).unwrap());
    let quick = Claimant { patience: Duration::from_millis(900), ..alive };
    let kept = store.try_lease(&held, &quick, None).unwrap().unwrap();
    std::mem::forget(store.try_lease(&ours, &here, None).unwrap());
    let clock = ManualClock::shared();
    let mut watch = LeaseWatch::begin(&store, &store, &here, clock.clone()).unwrap();
    let is_leased = |watch: &LeaseWatch, job| store.is_leased(job, &here, watch).unwrap();
    assert!(!watch.is_settled() && is_leased(&watch, &lost) && is_leased(&watch, &held) && !is_leased(&watch, &ours));
    assert!(store.try_lease(&lost, &here, Some(&watch)).unwrap().is_err());
    // Three beats of the one that is alive.
    CancelToken::new().wait_timeout(Duration::from_millis(900));
    watch.look(&store).unwrap();
    clock.advance(PATIENCE);
    assert!(watch.is_settled() && !is_leased(&watch, &lost) && is_leased(&watch, &held));
    assert_eq!(store.try_lease(&held, &here, Some(&watch)).unwrap().unwrap_err(), "alive");
    let taken = store.try_lease(&lost, &here, Some(&watch)).unwrap().unwrap();
    assert_eq!(taken.taken_from(), Some("dead"));
    drop((taken, kept));
}
