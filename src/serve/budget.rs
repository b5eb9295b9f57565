//! Shares the scorers that there may be between the jobs that run.
//!
//! Each job is built with as many nodes as it could ever use; those beyond its share are held: they have no thread and no network,
//! and are shown as wanted. The share changes whenever a job begins or ends.

use super::config::ServeConfig;
use super::entry::Entry;
use super::ident::RouteName;
use super::job::JobState;
use super::service::Inner;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a node may finish what it has when its place is needed elsewhere.
const NOTICE: Duration = Duration::from_secs(10);

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
    for (entry, share) in running.iter().zip(shares(&needs, config.nodes.max)) {
        give(entry, share);
    }
}

fn need(config: &ServeConfig, entry: &Entry) -> Need {
    let state = entry.lock();
    let route = state.record.accepted.route.clone();
    let found = config.route(&route);
    let (min, max) = found.map_or((1, None), |r| (r.nodes_min, r.nodes_max));
    Need { route, min, built: state.live.built, route_max: max.unwrap_or(config.nodes.max).max(1) }
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
        Need { route: RouteName::parse(route).unwrap(), min, built, route_max }
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
    fn a_route_has_its_own_limit() {
        let needs = [need("r", 1, 4, 4), need("r", 1, 4, 4), need("s", 1, 8, 8)];
        assert_eq!(shares(&needs, 8), [2, 2, 4]);
    }
}
