//! Which waiting job goes next: tenants take turns, in a tenant the most urgent go first, among those routes take turns, and in a
//! route the oldest goes first.

use super::ident::{RouteName, Tenant};
use std::collections::BTreeMap;

/// A job that could begin.
#[derive(Debug, Clone)]
pub(super) struct Waiting<'a, Key> {
    pub(super) key: Key,
    pub(super) tenant: &'a Tenant,
    pub(super) route: &'a RouteName,
    pub(super) priority: i32,
    pub(super) created_at: &'a str,
}

/// Who had how many turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    tenants: Counter<Tenant>,
    routes: BTreeMap<Tenant, Counter<RouteName>>,
}

/// Turns taken; one who was away begins where the others are, so that nobody saves turns up.
#[derive(Debug)]
struct Counter<K> {
    taken: BTreeMap<K, u64>,
    floor: u64,
}

impl<K> Default for Counter<K> {
    fn default() -> Self {
        Self { taken: BTreeMap::new(), floor: 0 }
    }
}

impl<K: Ord + Clone> Counter<K> {
    fn of(&self, who: &K) -> u64 {
        self.taken.get(who).copied().unwrap_or(0).max(self.floor)
    }

    fn take(&mut self, who: &K) {
        let taken = self.of(who);
        self.floor = taken;
        self.taken.insert(who.clone(), taken + 1);
        // Whoever stands at the floor is where somebody new would be.
        self.taken.retain(|_, t| *t > taken);
    }
}

impl Turns {
    /// Chooses the next job and notes the turn; `running` tells how many jobs of a tenant run.
    pub(super) fn next<Key: Ord + Clone>(
        &mut self,
        waiting: &[Waiting<'_, Key>],
        running: impl Fn(&Tenant) -> usize,
    ) -> Option<Key> {
        let turn = |w: &&Waiting<'_, Key>| (running(w.tenant), self.tenants.of(w.tenant), w.tenant.clone());
        let tenant = waiting.iter().min_by_key(turn)?.tenant;
        let own = || waiting.iter().filter(|w| w.tenant == tenant);
        let priority = own().map(|w| w.priority).max()?;
        let urgent = own().filter(|w| w.priority == priority);
        let order = |w: &&Waiting<'_, Key>| {
            let taken = self.routes.get(w.tenant).map_or(0, |routes| routes.of(w.route));
            (taken, w.route.clone(), w.created_at.to_owned(), w.key.clone())
        };
        let chosen = urgent.min_by_key(order)?;
        self.tenants.take(chosen.tenant);
        self.routes.entry(chosen.tenant.clone()).or_default().take(chosen.route);
        Some(chosen.key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Job(u32, Tenant, RouteName, i32, String);

    fn job(number: u32, tenant: &str, route: &str, priority: i32) -> Job {
        let (tenant, route) = (Tenant::parse(tenant).unwrap(), RouteName::parse(route).unwrap());
        Job(number, tenant, route, priority, format!("{number:04}"))
    }

    /// The order in which jobs go, one at a time.
    fn order(jobs: Vec<Job>) -> Vec<u32> {
        let (mut jobs, mut turns, mut order) = (jobs, Turns::default(), Vec::new());
        loop {
            let waiting: Vec<_> = jobs
                .iter()
                .map(|Job(key, tenant, route, priority, created_at)| Waiting {
                    key: *key,
                    tenant,
                    route,
                    priority: *priority,
                    created_at,
                })
                .collect();
            let Some(next) = turns.next(&waiting, |_| 0) else { return order };
            order.push(next);
            jobs.retain(|j| j.0 != next);
        }
    }

    #[test]
    fn tenants_take_turns_however_much_one_has() {
        let mut jobs: Vec<Job> = (0..6).map(|k| job(k, "a", "r", 0)).collect();
        jobs.extend((6..9).map(|k| job(k, "b", "s", 0)));
        assert_eq!(order(jobs), [0, 6, 1, 7, 2, 8, 3, 4, 5]);
    }

    #[test]
    fn urgency_counts_inside_a_tenant_only() {
        let jobs = vec![job(0, "a", "r", 0), job(1, "a", "q", 5), job(2, "b", "s", -5), job(3, "a", "r", 5)];
        assert_eq!(order(jobs), [1, 2, 3, 0]);
    }

    #[test]
    fn routes_of_a_tenant_take_turns() {
        let jobs = vec![job(0, "a", "r", 0), job(1, "a", "r", 0), job(2, "a", "s", 0), job(3, "a", "s", 0)];
        assert_eq!(order(jobs), [0, 2, 1, 3]);
    }

    #[test]
    fn nobody_saves_turns_up() {
        let mut turns = Turns::default();
        let early = [job(0, "a", "r", 0)];
        let one = |j: &'_ Job| j.0;
        for _ in 0..10 {
            let waiting: Vec<_> = early
                .iter()
                .map(|j| Waiting { key: one(j), tenant: &j.1, route: &j.2, priority: 0, created_at: &j.4 })
                .collect();
            turns.next(&waiting, |_| 0);
        }
        let late = [job(1, "b", "s", 0), job(2, "a", "r", 0), job(3, "b", "s", 0), job(4, "b", "s", 0)];
        let mut left: Vec<&Job> = late.iter().collect();
        let mut order = Vec::new();
        while !left.is_empty() {
            let waiting: Vec<_> = left
                .iter()
                .map(|j| Waiting { key: j.0, tenant: &j.1, route: &j.2, priority: 0, created_at: &j.4 })
                .collect();
            let next = turns.next(&waiting, |_| 0).unwrap();
            order.push(next);
            left.retain(|j| j.0 != next);
        }
        assert_eq!(order, [1, 2, 3, 4], "ten turns of a give b one turn more and not ten");
    }
}
