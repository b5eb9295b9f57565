//! The service in a few numbers, its routes, and reports of jobs.

use super::entry::{Entry, Key};
use super::error::ServiceError;
use super::ident::{ClientJobId, RouteName, Scope, Tenant};
use super::job::JobState;
use super::service::{Inner, Service, lock};
use super::time;
use super::view::{JobCounts, JobFilter, JobPage, NodeCounts, NodeState, Report, RouteView, Summary};
use std::sync::atomic::Ordering;

/// Jobs of a page where nobody says, and at most.
const PAGE: usize = 50;
const PAGE_MAX: usize = 500;

impl Service {
    /// Returns the service in a few numbers, as far as `scope` sees it.
    #[must_use]
    pub fn summary(&self, scope: &Scope) -> Summary {
        let (mut jobs, mut fps) = (JobCounts::default(), 0.0);
        for entry in self.inner.entries().iter().filter(|e| scope.sees(&e.key.0)) {
            let state = entry.lock();
            let count = match state.record.state {
                JobState::Queued => &mut jobs.queued,
                JobState::Running => {
                    fps += state.live.progress.fps;
                    &mut jobs.running
                }
                JobState::Paused => &mut jobs.paused,
                JobState::Finished => &mut jobs.finished,
                JobState::Failed => &mut jobs.failed,
                JobState::Cancelled => &mut jobs.cancelled,
            };
            *count += 1;
        }
        let nodes = self.nodes(scope);
        let count = |wanted: &[NodeState]| nodes.iter().filter(|n| wanted.contains(&n.state)).count() as u64;
        let limits = self.inner.config().nodes;
        let idle = *lock(&self.inner.idle_since);
        let clock = &*self.inner.clock;
        Summary {
            jobs,
            nodes: NodeCounts {
                running: count(&[NodeState::Starting, NodeState::Running, NodeState::Draining]),
                wanted: count(&[NodeState::Wanted]),
                min: limits.min as u64,
                max: limits.max as u64,
            },
            fps,
            idle_since: idle.map(|at| time::rfc3339(clock.unix().saturating_sub(clock.now().saturating_sub(at)))),
            draining: self.inner.draining.load(Ordering::SeqCst),
        }
    }

    /// Returns the routes that `scope` sees.
    #[must_use]
    pub fn routes(&self, scope: &Scope) -> Vec<RouteView> {
        let config = self.inner.config();
        let looks = lock(&self.inner.looks).clone();
        let mut views: Vec<RouteView> = Vec::new();
        for route in config.routes.iter().filter(|r| scope.sees(&r.tenant)) {
            let look = looks.get(&route.name).cloned().unwrap_or_default();
            views.push(RouteView {
                name: route.name.clone(),
                tenant: route.tenant.clone(),
                input: route.input.to_string(),
                output: route.output.to_string(),
                style: route.style.clone(),
                name_template: route.name_template.as_str().to_owned(),
                priority: route.priority,
                looked_at: Some(look.at).filter(|at| !at.is_empty()),
                error: look.error,
                queued: 0,
                running: 0,
            });
        }
        for entry in self.inner.entries() {
            let state = entry.lock();
            let Some(view) = views.iter_mut().find(|v| v.name == state.record.accepted.route) else { continue };
            match state.record.state {
                JobState::Queued => view.queued += 1,
                JobState::Running => view.running += 1,
                _ => {}
            }
        }
        views
    }

    /// Returns whose a route is.
    #[must_use]
    pub fn tenant_of(&self, route: &RouteName) -> Option<Tenant> {
        self.inner.config().route(route).map(|r| r.tenant.clone())
    }

    /// Returns what a job came to so far, as it is written to the route's log location at its end.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn report(&self, scope: &Scope, id: &ClientJobId) -> Result<Report, ServiceError> {
        Ok(self.inner.report(&*self.inner.find(scope, id)?))
    }
}

impl Inner {
    /// See [`Service::list`].
    pub(super) fn list(&self, scope: &Scope, filter: &JobFilter) -> JobPage {
        let limit = if filter.limit == 0 { PAGE } else { filter.limit.min(PAGE_MAX) };
        let prices = self.config().prices;
        let jobs = self.jobs();
        let before = filter.cursor.as_deref().and_then(read_cursor);
        let range = match &before {
            Some(before) => jobs.by_age.range(..before.clone()),
            None => jobs.by_age.range::<(String, Key), _>(..),
        };
        let wanted = |entry: &Entry| {
            let state = entry.lock();
            let (record, tenant) = (&state.record, &entry.key.0);
            scope.sees(tenant)
                && filter.tenant.as_ref().is_none_or(|t| t == tenant)
                && filter.route.as_ref().is_none_or(|r| *r == record.accepted.route)
                && (filter.states.is_empty() || filter.states.contains(&record.state))
        };
        let mut found = range.rev().filter(|(_, key)| jobs.by_key.get(key).is_some_and(|e| wanted(e)));
        let page: Vec<&(String, Key)> = found.by_ref().take(limit).collect();
        let next = found.next().and(page.last()).map(|(at, (tenant, id))| format!("{at}~{tenant}~{id}"));
        let views = page.iter().filter_map(|(_, key)| jobs.by_key.get(key)).map(|e| e.view(prices)).collect();
        JobPage { jobs: views, next }
    }
}

fn read_cursor(text: &str) -> Option<(String, Key)> {
    let mut parts = text.split('~');
    let (at, tenant, id) = (parts.next()?, parts.next()?, parts.next()?);
    Some((at.to_owned(), (Tenant::parse(tenant).ok()?, ClientJobId::parse(id).ok()?)))
}
