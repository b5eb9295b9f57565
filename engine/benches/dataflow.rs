//! What the engine costs an item: the pool beside rayon and a plain channel, a link, the ledger in memory, the window.
//!
//! Items are empty here; a frame takes milliseconds, so that a few microseconds of engine are a thousandth of it.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use restyle_engine::clock::SystemClock;
use restyle_engine::ledger::{Ledger, MemoryStore, SegmentHeader, SourceHash};
use restyle_engine::{
    CancelToken, CreditLimit, Credits, Item, ItemId, ItemIndex, JobId, Pool, PoolConfig, Reorder, SegmentIndex, Signal,
    Taken, link,
};
use std::hint::black_box;
use std::sync::Arc;

const ITEMS: u32 = 1_000;
const WORKERS: usize = 2;
/// Items under way at once.
const WINDOW: usize = 64;

/// What a worker does with an item: enough that it cannot be left out.
fn work(payload: u32) -> u32 {
    black_box(payload).wrapping_mul(2_654_435_761)
}

/// Pushes items through the engine's whole path: a credit, the pool, a lease, its commit, and the credit back.
fn through_the_pool() {
    let credits = Credits::new(CreditLimit { items: WINDOW, bytes: u64::MAX / 2 });
    let (pool, cancel) = (Pool::new(PoolConfig { attempts_max: 3 }, SystemClock::shared()), CancelToken::new());
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let member = pool.join(worker.to_string());
            scope.spawn(move || {
                let signal = Signal::new();
                while let Taken::Batch(batch) = member.take(1, &|_, _| true, &signal) {
                    for lease in batch {
                        let result = work(*lease);
                        drop(lease.commit(result));
                    }
                }
            });
        }
        for index in 0..ITEMS {
            let Ok(credit) = credits.acquire(1, &cancel) else { return };
            if pool.push(Item::new(ItemId::new(0, index), index, credit)).is_err() {
                return;
            }
        }
        pool.close();
    });
}

fn through_a_channel() {
    let (sender, receiver) = crossbeam_channel::bounded(WINDOW);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            let receiver = receiver.clone();
            scope.spawn(move || {
                receiver.iter().for_each(|payload| {
                    let _ = black_box(work(payload));
                })
            });
        }
        (0..ITEMS).for_each(|index| sender.send(index).expect("the receivers live until all is sent"));
        drop(sender);
    });
}

fn steal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("steal");
    group.throughput(Throughput::Elements(u64::from(ITEMS)));
    group.bench_function("pool", |bencher| bencher.iter(through_the_pool));
    group.bench_function("crossbeam channel", |bencher| bencher.iter(through_a_channel));
    let rayon = rayon::ThreadPoolBuilder::new().num_threads(WORKERS).build().expect("threads can be had");
    group.bench_function("rayon", |bencher| {
        bencher.iter(|| {
            rayon.scope(|scope| {
                for index in 0..ITEMS {
                    scope.spawn(move |_| {
                        let _ = black_box(work(index));
                    });
                }
            });
        });
    });
    group.finish();
}

fn links(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("link");
    group.throughput(Throughput::Elements(u64::from(ITEMS)));
    group.bench_function("one to one", |bencher| {
        bencher.iter(|| {
            let (sender, receiver) = link("bench", WINDOW);
            let cancel = CancelToken::new();
            std::thread::scope(|scope| {
                scope.spawn(|| while receiver.recv(&cancel).is_ok() {});
                (0..ITEMS).for_each(|index| drop(sender.send(index, &cancel)));
                drop(sender);
            });
        });
    });
    group.finish();
}

fn reorder(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reorder");
    group.throughput(Throughput::Elements(u64::from(ITEMS)));
    group.bench_function("pairs turned round", |bencher| {
        bencher.iter(|| {
            let mut window = Reorder::new(ItemIndex(0), WINDOW);
            for index in 0..ITEMS {
                drop(window.insert(ItemIndex(index ^ 1), index));
                while window.pop().is_some() {}
            }
            black_box(window.len())
        });
    });
    group.finish();
}

fn only_segment() -> SegmentHeader {
    SegmentHeader {
        segment: SegmentIndex(0),
        items: 50,
        previous: None,
        next: None,
        first_pts: 0,
        last_pts: 49,
        last_hash: SourceHash(7),
        writer: "bench".to_owned(),
    }
}

fn ledger(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ledger");
    let fresh = || Ledger::new(Arc::new(MemoryStore::new()), JobId::new([1; 32]), "bench");
    group.bench_function("fix a plan in memory", |bencher| {
        let plan = serde_json::json!({"segments": vec![0; 100]});
        bencher.iter_batched(fresh, |ledger| ledger.fix_plan(&plan).is_ok(), BatchSize::SmallInput);
    });
    let planned =
        || fresh().fix_plan(&1).map(|plan| fresh().segments(&plan.value)).expect("a store in memory takes it");
    let (header, payload) = (only_segment(), vec![7u8; 1 << 20]);
    group.throughput(Throughput::Bytes(payload.len() as u64));
    group.bench_function("commit a segment of 1 MiB in memory", |bencher| {
        bencher.iter_batched(planned, |ledger| ledger.commit(&header, &payload).is_ok(), BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(benches, steal, links, reorder, ledger);
criterion_main!(benches);
