//! Shares the scorers that there may be between the jobs that run.
//!
//! Each job is built with as many nodes as it could ever use; those beyond its share are held: they have no thread and no network,
//! and are shown as wanted. The share changes whenever a job begins, is planned, or ends, and while memory is short.

use super::config::ServeConfig;
use super::entry::Entry;
use super::ident::RouteName;
use super::job::{Accepted, JobState};
use super::memory;
use super::service::Inner;
use super::view::EngineView;
use restyle_engine::supervise::{NodeObservation, NodePhase};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a node may finish what it has when its place is needed elsewhere.
const NOTICE: Duration = Duration::from_secs(10);

/// What a scorer holds whatever it scores: its network and stacks, in bytes.
const NODE_BYTES: u64 = 32 << 20;
/// What it holds a pixel that it scores, in bytes: 180 MB at 1280x720, and some.
const SCORED_PIXEL_BYTES: u64 = 220;
/// What it holds a pixel of the picture: decoded and scored frames on their way, in bytes.
const PICTURE_PIXEL_BYTES: u64 = 40;
/// What it holds beyond that where pictures are mixed, in bytes: source, part and sum in three planes of floats each.
const MIXED_PIXEL_BYTES: u64 = 3 * 3 * 4;
/// And of each network's picture, which is mixed when all have made theirs: three planes at 16 bits.
const PART_PIXEL_BYTES: u64 = 3 * 2;

/// What one job could use.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Need {
    route: RouteName,
    /// What it should have while capacity lasts.
    min: usize,
    /// What it was built with.
    built: usize,
    /// What the jobs of its route may have together.
    route_max: usize,
    /// Bytes of one of its scorers; `None` before the size of its pictures is known.
    node_bytes: Option<u64>,
    /// What it has now.
    have: usize,
}

/// Returns how many nodes a new job is built with.
pub(super) fn built(config: &ServeConfig, route: &RouteName) -> usize {
    let own = config.route(route).and_then(|r| r.nodes_max).unwrap_or(config.nodes.max);
    own.min(config.nodes.max).max(1)
}

/// Gives every running job its share.
pub(super) fn share(inner: &Inner) {
    let config = inner.config();
    let mut running: Vec<Arc<Entry>> = inner.entries().into_iter().filter(|e| e.state() == JobState::Running).collect();
    // The eldest first, so that a share moves as little as can be.
    running.sort_by_key(|e| (e.lock().record.started_at.clone(), e.key.clone()));
    running.retain(|e| e.lock().live.built > 0);
    let needs: Vec<Need> = running.iter().map(|entry| need(&config, entry)).collect();
    let wanted = shares(&needs, config.nodes.max);
    let given = match config.nodes.memory {
        Some(limit) => fitting(&needs, wanted.clone(), |_| 0, limit),
        None => fitting(&needs, wanted.clone(), |need| need.have, memory::available()),
    };
    inner.is_short.store(given != wanted, Ordering::Relaxed);
    for (entry, share) in running.iter().zip(given) {
        give(entry, share);
    }
}

/// Takes scorers from those who would get most until the memory for what is new suffices; one each stays.
fn fitting(needs: &[Need], mut shares: Vec<usize>, have: impl Fn(&Need) -> usize, available: u64) -> Vec<usize> {
    loop {
        let new = |(need, share): (&Need, &usize)| share.saturating_sub(have(need));
        let bytes = |(need, share)| new((need, share)) as u64 * need.node_bytes.unwrap_or(0);
        let needed: u64 = needs.iter().zip(&shares).map(bytes).sum();
        let costliest = needs.iter().zip(&shares).enumerate();
        let costliest = costliest.filter(|(_, (need, share))| **share > 1 && bytes((need, share)) > 0);
        match costliest.max_by_key(|(_, (need, share))| bytes((need, share))).map(|(k, _)| k) {
            Some(k) if needed > available => shares[k] -= 1,
            _ => return shares,
        }
    }
}

fn need(config: &ServeConfig, entry: &Entry) -> Need {
    let state = entry.lock();
    let route = state.record.accepted.route.clone();
    let found = config.route(&route);
    let (min, max) = found.map_or((1, None), |r| (r.nodes_min, r.nodes_max));
    let node_bytes = state.live.engine.as_ref().map(|engine| scorer_bytes(engine, &state.record.accepted));
    // Until it is known what its pictures need, one has to do.
    let built = if node_bytes.is_some() { state.live.built } else { 1 };
    let (control, route_max) = (state.live.control.clone(), max.unwrap_or(config.nodes.max).max(1));
    drop(state);
    let works = |node: &&NodeObservation| matches!(node.phase, NodePhase::Working | NodePhase::Paused);
    let have = control.map_or(0, |control| control.nodes().iter().filter(works).count());
    Need { route, min, built, route_max, node_bytes, have }
}

/// What one scorer of a job holds.
fn scorer_bytes(engine: &EngineView, accepted: &Accepted) -> u64 {
    let picture = u64::from(engine.width) * u64::from(engine.height);
    let width = accepted.options.size.map_or(u64::from(engine.width), u64::from);
    let scored = width * width * u64::from(engine.height) / u64::from(engine.width.max(1));
    let networks = accepted.blended.max(1) as u64;
    let is_mixed = networks > 1 || accepted.options.mixes();
    let mixed = if is_mixed { MIXED_PIXEL_BYTES + networks * PART_PIXEL_BYTES } else { 0 };
    networks * (NODE_BYTES + scored * SCORED_PIXEL_BYTES) + picture * (PICTURE_PIXEL_BYTES + mixed)
}

/// One node each, then everybody's minimum, then the rest by turns; nobody is left with none.
fn shares(needs: &[Need], capacity: usize) -> Vec<usize> {
    let mut shares = vec![1; needs.len()];
    let mut left = capacity.saturating_sub(needs.len());
    let mut of_route: BTreeMap<&RouteName, usize> = BTreeMap::new();
    needs.iter().for_each(|n| *of_route.entry(&n.route).or_default() += 1);
    for minimum_only in [true, false] {
        let mut given = true;
        while given && left > 0 {
            given = false;
            for (share, need) in shares.iter_mut().zip(needs) {
                let limit = if minimum_only { need.min.min(need.built) } else { need.built };
                let taken = of_route.entry(&need.route).or_default();
                if left > 0 && *share < limit && *taken < need.route_max {
                    (*share, *taken, left, given) = (*share + 1, *taken + 1, left - 1, true);
                }
            }
        }
    }
    shares
}

/// Holds what is beyond a job's share and releases what is within it.
fn give(entry: &Entry, share: usize) {
    let (control, nodes, before) = {
        let mut state = entry.lock();
        let before = std::mem::replace(&mut state.live.share, share);
        (state.live.control.clone(), state.live.names.clone(), before)
    };
    let Some(control) = control.filter(|_| before != share) else { return };
    tracing::debug!(job = %entry.key.1, before, share, "share of nodes");
    for (k, node) in nodes.iter().enumerate() {
        if k >= share && (k < before || before == 0) {
            control.hold(node, NOTICE);
        } else if k < share && k >= before {
            control.release(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(route: &str, min: usize, built: usize, route_max: usize) -> Need {
        Need { route: RouteName::parse(route).unwrap(), min, built, route_max, node_bytes: Some(100), have: 0 }
    }

    #[test]
    fn capacity_is_shared_and_never_given_twice() {
        let r = |min| need("r", min, 8, 8);
        assert_eq!(shares(&[r(1)], 8), [8]);
        assert_eq!(shares(&[r(1), r(1), r(1)], 8), [3, 3, 2]);
        assert_eq!(shares(&[r(1), r(6)], 8), [2, 6]);
        assert_eq!(shares(&[r(1), r(1), r(1)], 2), [1, 1, 1], "a job without a node would wait for ever");
        assert_eq!(shares(&[], 2), [0; 0]);
    }

    #[test]
    fn what_memory_does_not_hold_is_not_given() {
        let needs = [need("r", 1, 8, 8), Need { have: 2, ..need("s", 1, 8, 8) }];
        let fit = |available| fitting(&needs, vec![4, 4], |need| need.have, available);
        assert_eq!(fit(600), [4, 4]);
        assert_eq!(fit(500), [3, 4]);
        assert_eq!(fit(300), [2, 3], "what works already needs nothing new, and the rest is shared");
        assert_eq!(fit(0), [1, 2], "one each, whatever happens");
        let unknown = [Need { node_bytes: None, ..need("r", 1, 8, 8) }];
        assert_eq!(fitting(&unknown, vec![4], |_| 0, 0), [4]);
    }

    #[test]
    fn mixing_takes_memory_of_its_own() {
        let engine = EngineView { device: "cpu".into(), encoder: "x".into(), width: 100, height: 10, workers: 1 };
        let mut accepted = crate::serve::journal::tests::accepted("t", "r", "one");
        let plain = scorer_bytes(&engine, &accepted);
        accepted.options.strength = Some(1.0);
        assert_eq!(scorer_bytes(&engine, &accepted), plain, "a whole style is not mixed with anything");
        accepted.options.strength = Some(0.5);
        assert_eq!(scorer_bytes(&engine, &accepted), plain + 1000 * (MIXED_PIXEL_BYTES + PART_PIXEL_BYTES));
        (accepted.options.strength, accepted.blended) = (None, 3);
        let networks = 2 * (NODE_BYTES + 1000 * SCORED_PIXEL_BYTES);
        assert_eq!(
            scorer_bytes(&engine, &accepted),
            plain + networks + 1000 * (MIXED_PIXEL_BYTES + 3 * PART_PIXEL_BYTES)
        );
    }

    #[test]
    fn a_route_has_its_own_limit() {
        let needs = [need("r", 1, 4, 4), need("r", 1, 4, 4), need("s", 1, 8, 8)];
        assert_eq!(shares(&needs, 8), [2, 2, 4]);
    }
}
