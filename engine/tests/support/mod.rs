//! A whole pass over items that are numbers: decoder, credits, pool, scorers, a link a segment, encoders.
//!
//! The shape is the one that the real stages have. The oracle is the output of an undisturbed pass.
#![allow(unreachable_pub)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use restyle_engine::{
    CancelToken, ControlPlane, CreditLimit, Credits, ExitReason, Item, ItemId, ItemIndex, LinkReceiver, LinkSender,
    NodeSpec, Pool, PoolConfig, Reorder, RestartPolicy, Stage, StageError, StageHandle, StageSpec, Status, SystemClock,
    Topology, TopologyReport, WorkerContext, link, work,
};

pub const SEGMENTS: u32 = 12;
pub const ITEMS: u32 = 25;
pub const CREDITS: usize = 10;
/// Only a broken test waits this long.
pub const LONG: Duration = Duration::from_secs(60);

pub struct Decoded {
    value: u64,
    segment_link: LinkSender<Encodable>,
}

struct Scored {
    value: u64,
    segment_link: LinkSender<Encodable>,
}

enum Encodable {
    Item(Item<u64>),
    End { items: u32 },
}

type OpenedSegment = (u32, LinkReceiver<Encodable>);

/// What a scorer does before it scores a value.
pub type Disturb = Arc<dyn Fn(&WorkerContext, ItemId) -> Result<(), StageError> + Send + Sync>;

struct Scorer {
    context: WorkerContext,
    disturb: Disturb,
}

impl Stage<(ItemId, Decoded), Scored> for Scorer {
    fn batch_items_max(&self) -> usize {
        3
    }

    fn compatible(&self, (first, _): &(ItemId, Decoded), (second, _): &(ItemId, Decoded)) -> bool {
        first.segment.0 / 4 == second.segment.0 / 4
    }

    fn process(&mut self, batch: &[&(ItemId, Decoded)]) -> Vec<Result<Scored, StageError>> {
        let score = |(id, decoded): &&(ItemId, Decoded)| {
            (self.disturb)(&self.context, *id)?;
            Ok(Scored { value: score(decoded.value), segment_link: decoded.segment_link.clone() })
        };
        batch.iter().map(score).collect()
    }
}

fn score(value: u64) -> u64 {
    value * value + 1
}

fn value(segment: u32, index: u32) -> u64 {
    u64::from(segment) * 1000 + u64::from(index)
}

/// Everything that one pass is made of.
#[derive(Clone)]
pub struct Pass {
    pub credits: Credits,
    pub pool: Pool<(ItemId, Decoded)>,
    pub cancel: CancelToken,
    /// Encoders do not take items while this is not cancelled.
    pub encoders_open: CancelToken,
    pub encoded: Arc<Mutex<BTreeMap<u32, Vec<u64>>>>,
}

impl Pass {
    pub fn new() -> Pass {
        let clock = SystemClock::shared();
        Pass {
            credits: Credits::with_clock(CreditLimit { items: CREDITS, bytes: 10_000 }, clock.clone()),
            pool: Pool::new(PoolConfig { attempts_max: 20 }, clock),
            cancel: CancelToken::new(),
            encoders_open: CancelToken::new(),
            encoded: Arc::default(),
        }
    }

    fn decode(&self, context: &WorkerContext, open: &LinkSender<OpenedSegment>) -> Result<(), StageError> {
        let stopped = |_| StageError::new(Status::Transient, "cancelled");
        for segment in 0..SEGMENTS {
            let (sender, receiver) = link(format!("segment-{segment}"), CREDITS + 1);
            let _waiting = context.progress.waiting_downstream();
            open.send((segment, receiver), &self.cancel)
                .map_err(|_| StageError::new(Status::Transient, "no encoder is left"))?;
            for index in 0..ITEMS {
                let credit = self.credits.acquire(100, &self.cancel).map_err(stopped)?;
                let id = ItemId::new(segment, index);
                let decoded = Decoded { value: value(segment, index), segment_link: sender.clone() };
                self.pool.push(Item::new(id, (id, decoded), credit)).expect("only the decoder closes the pool");
                context.progress.tick();
            }
            sender
                .send(Encodable::End { items: ITEMS }, &self.cancel)
                .map_err(|_| StageError::new(Status::Transient, "the encoder is gone"))?;
        }
        self.pool.close();
        Ok(())
    }

    fn encode(&self, (segment, receiver): OpenedSegment) -> Option<()> {
        self.encoders_open.wait();
        let mut reorder = Reorder::new(ItemIndex(0), CREDITS);
        let (mut encoded, mut end) = (Vec::new(), None);
        while end != Some(encoded.len() as u32) {
            match receiver.recv(&self.cancel).ok()? {
                Encodable::Item(item) => reorder.insert(item.id.index, item).expect("the window holds all credits"),
                Encodable::End { items } => end = Some(items),
            }
            encoded.extend(std::iter::from_fn(|| reorder.pop()).map(|item| item.payload));
        }
        let before = self.encoded.lock().unwrap().insert(segment, encoded);
        assert!(before.is_none(), "a segment is encoded once");
        Some(())
    }

    /// Starts decoder, scorers and encoders.
    pub fn start(&self, control: &ControlPlane, nodes: &[&str], disturb: Disturb) -> Topology {
        let (open, opened) = link::<OpenedSegment>("open", 1);
        let opened = Arc::new(Mutex::new(opened));
        let mut topology = Topology::new(self.cancel.clone(), LONG);
        let pass = self.clone();
        let open = Mutex::new(Some(open));
        topology.add_strict(start_stage(control, "decode", &["only"], RestartPolicy::never(), move |context| {
            let open = open.lock().unwrap().take().expect("the decoder starts once");
            pass.decode(&context, &open).map_or_else(|error| ExitReason::from_error(&error), |()| ExitReason::Finished)
        }));
        let pass = self.clone();
        let policy = RestartPolicy { backoff_first: Duration::ZERO, zombies_max: 1000, ..RestartPolicy::restarting() };
        topology.add(start_stage(control, "score", nodes, policy, move |context| {
            let mut scorer = Scorer { context: context.clone(), disturb: disturb.clone() };
            work(&context, &pass.pool, &mut scorer, &mut |item: Item<Scored>| {
                let link = item.payload.segment_link.clone();
                let item = item.map(|scored| scored.value);
                link.try_send(Encodable::Item(item)).expect("a segment's link has room for every credit");
            })
        }));
        let pass = self.clone();
        topology.add_strict(start_stage(control, "encode", &["e0", "e1"], RestartPolicy::never(), move |_| {
            loop {
                let opened = opened.lock().unwrap().recv(&pass.cancel);
                let Ok(segment) = opened else { return ExitReason::Finished };
                if pass.encode(segment).is_none() {
                    return ExitReason::Stopped;
                }
            }
        }));
        topology
    }

    pub fn assert_whole(&self, report: &TopologyReport) {
        assert!(report.is_finished(), "{report:?}");
        let expected: BTreeMap<u32, Vec<u64>> = (0..SEGMENTS)
            .map(|segment| (segment, (0..ITEMS).map(|index| score(value(segment, index))).collect()))
            .collect();
        assert_eq!(*self.encoded.lock().unwrap(), expected);
        assert_eq!(self.credits.in_use(), (0, 0));
        assert!(self.credits.stats().items_peak <= CREDITS);
        assert_eq!(self.pool.stats().committed, u64::from(SEGMENTS * ITEMS));
    }
}

fn start_stage(
    control: &ControlPlane,
    name: &str,
    nodes: &[&str],
    policy: RestartPolicy,
    run: impl Fn(WorkerContext) -> ExitReason + Send + Sync + 'static,
) -> StageHandle {
    let nodes = nodes.iter().map(|node| NodeSpec::new(*node, "cpu")).collect();
    control.stage(StageSpec { name: name.into(), policy, hang_after: Some(LONG), nodes }, run).unwrap()
}

pub fn undisturbed() -> Disturb {
    Arc::new(|_, _| Ok(()))
}
