//! Who asks, as the guard found out.

use super::problem::Problem;
use crate::serve::access::{Action, Role, TokenRecord};
use crate::serve::ident::{Scope, Tenant};
use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest};
use serde::{Deserialize, Serialize};
use std::future::{Ready, ready};
use std::time::{Duration, UNIX_EPOCH};
use utoipa::ToSchema;

/// Whoever asks.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) name: String,
    pub(super) role: Role,
    tenant: Option<Tenant>,
    expires_unix_seconds: Option<u64>,
}

/// What a caller is told about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MeView {
    /// The name its token was made with; `local` where no tokens are configured.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Whose jobs it sees; null: every tenant's.
    pub tenant: Option<Tenant>,
    /// When its token ends, RFC 3339; null: never.
    pub expires_at: Option<String>,
}

impl Caller {
    /// Whoever reaches a loopback listener without tokens: the person at this machine.
    pub(super) fn local() -> Self {
        Self { name: "local".to_owned(), role: Role::Admin, tenant: None, expires_unix_seconds: None }
    }

    /// The holder of a token; `None` for a tenant that could not be a route's.
    pub(super) fn holder(record: TokenRecord) -> Option<Self> {
        let tenant = match record.tenant {
            Some(said) => Some(Tenant::parse(&said).ok()?),
            // Without one, those who oversee see everybody's.
            None if record.role >= Role::Operator => None,
            None => Some(Tenant::default()),
        };
        let expires_unix_seconds = record.expires_unix_seconds;
        Some(Self { name: record.name, role: record.role, tenant, expires_unix_seconds })
    }

    /// Lets through whoever may do `action`.
    pub(super) fn may(&self, action: Action) -> Result<(), Problem> {
        if self.role.allows(action) {
            return Ok(());
        }
        Err(Problem::forbidden(format!("the role {} is not enough for this", self.role)))
    }

    /// Returns whose jobs the caller sees.
    pub(super) fn scope(&self) -> Scope {
        self.tenant.clone().map_or(Scope::All, Scope::Tenant)
    }

    /// Returns whose jobs a request is about: the caller's, or the one that it names and may see.
    pub(super) fn scope_of(&self, said: Option<&str>) -> Result<Scope, Problem> {
        let Some(said) = said else { return Ok(self.scope()) };
        let tenant = Tenant::parse(said)?;
        // Another tenant's things do not exist for the caller.
        let seen = self.scope().sees(&tenant).then_some(Scope::Tenant(tenant));
        seen.ok_or_else(|| Problem::not_found("there is no such tenant"))
    }

    pub(super) fn view(&self) -> MeView {
        let at = |seconds: u64| {
            let last = Duration::from_secs(seconds.min(253_402_300_799));
            humantime::format_rfc3339_seconds(UNIX_EPOCH + last).to_string()
        };
        MeView {
            name: self.name.clone(),
            role: self.role,
            tenant: self.tenant.clone(),
            expires_at: self.expires_unix_seconds.map(at),
        }
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        // A request that went past the guard without a caller is refused, not let in.
        ready(request.extensions().get::<Self>().cloned().ok_or_else(Problem::unauthorized))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(role: Role, tenant: Option<&str>) -> Caller {
        let record = TokenRecord {
            name: "x".into(),
            role,
            tenant: tenant.map(Into::into),
            created_unix_seconds: 0,
            expires_unix_seconds: None,
            blake3: String::new(),
        };
        Caller::holder(record).unwrap()
    }

    #[test]
    fn only_overseers_without_a_tenant_see_everybody() {
        assert_eq!(holder(Role::Operator, None).scope(), Scope::All);
        assert_eq!(holder(Role::Viewer, None).scope(), Scope::Tenant(Tenant::default()));
        let acme = holder(Role::Admin, Some("acme"));
        assert_eq!(acme.scope(), Scope::Tenant(Tenant::parse("acme").unwrap()));
        assert!(acme.scope_of(Some("other")).is_err() && acme.scope_of(Some("acme")).is_ok());
        assert!(holder(Role::Admin, None).scope_of(Some("other")).is_ok());
    }
}
