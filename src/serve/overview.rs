//! The service in a few numbers, its routes, and reports of jobs.

use super::error::ServiceError;
use super::ident::{ClientJobId, RouteName, Scope, Tenant};
use super::job::JobState;
use super::service::{Service, lock};
use super::time;
use super::view::{JobCounts, NodeCounts, NodeState, Report, RouteView, Summary};
use std::sync::atomic::Ordering;

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
