//! What a caller may do: four roles, each may do what the one before may.

use super::AccessError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A role; later ones may do everything that earlier ones may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks at its tenant's jobs.
    Viewer,
    /// Submits jobs and inputs, and cancels and retries jobs of its tenant.
    Submitter,
    /// Pauses and resumes jobs of its tenant, and steers nodes.
    Operator,
    /// Does all of that for every tenant.
    Admin,
}

/// Something that needs a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Looking at jobs, routes, styles, nodes, logs, and fetching outputs.
    Read,
    /// Creating jobs, sending inputs, telling of new objects.
    Submit,
    /// Cancelling or retrying a job.
    EndOrRetry,
    /// Pausing or resuming a job.
    Pause,
    /// Pre-empting, draining or resuming a node.
    SteerNodes,
}

impl Role {
    /// Every role, from the least.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Submitter, Self::Operator, Self::Admin];

    /// Tells whether this role is enough for `action`.
    #[must_use]
    pub fn allows(self, action: Action) -> bool {
        self >= match action {
            Action::Read => Self::Viewer,
            Action::Submit | Action::EndOrRetry => Self::Submitter,
            Action::Pause | Action::SteerNodes => Self::Operator,
        }
    }

    /// Returns the name, as files and responses have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Submitter => "submitter",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = AccessError;

    fn from_str(said: &str) -> Result<Self, AccessError> {
        let unknown = || AccessError::Invalid(format!("role {said}: expected viewer, submitter, operator or admin"));
        Self::ALL.into_iter().find(|role| role.name() == said).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_may_do_what_lesser_ones_may() {
        let actions = [Action::Read, Action::Submit, Action::EndOrRetry, Action::Pause, Action::SteerNodes];
        let allowed = |role: Role| actions.iter().filter(|a| role.allows(**a)).count();
        assert_eq!(Role::ALL.map(allowed), [1, 3, 5, 5]);
        assert!(Role::ALL.windows(2).all(|w| actions.iter().all(|a| !w[0].allows(*a) || w[1].allows(*a))));
    }

    #[test]
    fn names_are_read_back_and_others_refused() {
        for role in Role::ALL {
            assert_eq!(role.name().parse::<Role>().unwrap(), role);
        }
        assert!("root".parse::<Role>().unwrap_err().to_string().contains("viewer, submitter"));
    }
}
