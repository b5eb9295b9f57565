//! How object stores are reached: endpoints, credentials, limits.
//!
//! What is not given here comes from the chains of the services' own tools: environment, files of the user, managed
//! identity. Nothing in this file is ever shown; values that are secret have no `Debug`.

use std::time::Duration;

use opendal::Operator;
use opendal::layers::{ConcurrentLimitLayer, RetryLayer, TimeoutLayer};
use opendal::services::{Azblob, Gcs, S3};

/// A value that is never shown: it has neither `Debug` nor `Display`.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Keeps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// Gives the value to whoever signs with it.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

/// How every object store is reached. The default leaves everything to the services' own chains.
#[derive(Clone, Default)]
pub struct Access {
    /// Amazon S3 and what speaks like it.
    pub s3: S3Access,
    /// Azure Blob Storage.
    pub azblob: AzblobAccess,
    /// Google Cloud Storage.
    pub gs: GsAccess,
    /// How long and how often a store is asked.
    pub limits: Limits,
}

/// How S3 is reached.
#[derive(Clone, Default)]
pub struct S3Access {
    /// Where it answers; `None`: Amazon's own, or what `AWS_ENDPOINT_URL` says.
    pub endpoint: Option<String>,
    /// Its region; `None`: `AWS_REGION`, else us-east-1.
    pub region: Option<String>,
    /// Keys; `None`: environment, shared credentials file, web identity, container or instance role.
    pub keys: Option<S3Keys>,
}

/// A pair of keys of S3, temporary where a session token belongs to it.
#[derive(Clone)]
pub struct S3Keys {
    /// Public half.
    pub access_key_id: String,
    /// Secret half.
    pub secret_access_key: Secret,
    /// What makes temporary keys valid.
    pub session_token: Option<Secret>,
}

/// How Azure Blob Storage is reached.
#[derive(Clone, Default)]
pub struct AzblobAccess {
    /// Where it answers, with the account as the path where the service wants that; `None`: the account's public one.
    pub endpoint: Option<String>,
    /// The storage account; `None`: by the URL's host or the endpoint.
    pub account: Option<String>,
    /// Account key; `None`: environment, workload or managed identity.
    pub key: Option<Secret>,
    /// Shared access signature; wins over everything else.
    pub sas: Option<Secret>,
}

/// How Google Cloud Storage is reached.
#[derive(Clone, Default)]
pub struct GsAccess {
    /// Where it answers; `None`: Google's own.
    pub endpoint: Option<String>,
    /// A temporary access token; `None`: credentials file or metadata server.
    pub token: Option<Secret>,
    /// Sends no credentials at all: emulators.
    pub is_anonymous: bool,
}

/// How long and how often a store is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest wait for an answer that carries no bytes.
    pub timeout: Duration,
    /// Longest wait for a piece of a transfer, at most a few MiB.
    pub transfer_timeout: Duration,
    /// Attempts at one request that fails for a moment, at least 1.
    pub attempts_max: usize,
    /// Requests under way to one bucket.
    pub concurrency_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(20),
            transfer_timeout: Duration::from_secs(60),
            attempts_max: 8,
            concurrency_max: 16,
        }
    }
}

impl Access {
    /// Reads endpoints and account names from the environment: `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`,
    /// `AWS_REGION`, `AWS_DEFAULT_REGION`, `AZURE_STORAGE_ENDPOINT`, `AZURE_STORAGE_ACCOUNT_NAME`,
    /// `STORAGE_EMULATOR_HOST`. Credentials are left to the services' chains.
    #[must_use]
    pub fn from_env() -> Self {
        let said = |names: &[&str]| {
            names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.trim().is_empty()))
        };
        let emulator = said(&["STORAGE_EMULATOR_HOST"]);
        Self {
            s3: S3Access {
                endpoint: said(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
                region: said(&["AWS_REGION", "AWS_DEFAULT_REGION"]),
                keys: None,
            },
            azblob: AzblobAccess {
                endpoint: said(&["AZURE_STORAGE_ENDPOINT"]),
                account: said(&["AZURE_STORAGE_ACCOUNT_NAME", "AZBLOB_ACCOUNT_NAME"]),
                key: None,
                sas: None,
            },
            gs: GsAccess { is_anonymous: emulator.is_some(), endpoint: emulator.map(with_scheme), token: None },
            limits: Limits::default(),
        }
    }
}

/// Emulators are named as `host:port` by Google's own tools.
fn with_scheme(host: String) -> String {
    if host.contains("://") { host } else { format!("http://{host}") }
}

/// Amazon's oldest region: what stores that know no regions expect.
const REGION: &str = "us-east-1";

pub(super) fn s3(bucket: &str, access: &S3Access) -> opendal::Result<Operator> {
    let mut service = S3::default().bucket(bucket).region(access.region.as_deref().unwrap_or(REGION));
    if let Some(endpoint) = &access.endpoint {
        service = service.endpoint(endpoint);
    }
    if let Some(keys) = &access.keys {
        service = service
            .access_key_id(&keys.access_key_id)
            .secret_access_key(keys.secret_access_key.expose())
            .disable_config_load()
            .disable_ec2_metadata();
        if let Some(token) = &keys.session_token {
            service = service.session_token(token.expose());
        }
    }
    Operator::new(service)
}

/// Where a container answers, and which account it belongs to; `None` where nothing says.
pub(super) fn azblob_place(host: Option<&str>, access: &AzblobAccess) -> Option<(String, String)> {
    let named = |host: &str| host.split('.').next().unwrap_or_default().to_owned();
    match (host, &access.endpoint, &access.account) {
        (Some(host), _, _) => Some((format!("https://{host}"), named(host))),
        (None, Some(endpoint), Some(account)) => Some((endpoint.trim_end_matches('/').to_owned(), account.clone())),
        (None, Some(endpoint), None) => {
            let host = endpoint.split("://").last().unwrap_or_default();
            Some((endpoint.trim_end_matches('/').to_owned(), named(host)))
        }
        (None, None, Some(account)) => Some((format!("https://{account}.blob.core.windows.net"), account.clone())),
        (None, None, None) => None,
    }
}

pub(super) fn azblob(
    container: &str,
    (endpoint, account): (&str, &str),
    access: &AzblobAccess,
) -> opendal::Result<Operator> {
    let mut service = Azblob::default().container(container).endpoint(endpoint).account_name(account);
    if let Some(sas) = &access.sas {
        service = service.sas_token(sas.expose().trim_start_matches('?'));
    } else if let Some(key) = &access.key {
        service = service.account_key(key.expose());
    }
    Operator::new(service)
}

pub(super) fn gs(bucket: &str, access: &GsAccess) -> opendal::Result<Operator> {
    let mut service = Gcs::default().bucket(bucket);
    if let Some(endpoint) = &access.endpoint {
        service = service.endpoint(endpoint);
    }
    if let Some(token) = &access.token {
        service = service.token(token.expose().to_owned());
    }
    if access.is_anonymous {
        service = service.skip_signature();
    }
    Operator::new(service)
}

/// Bounds every request in time, tries again what may go well next time, and lets only so many through at once. In this
/// order: a wait between attempts is no part of a request's time, and whoever waits holds its place.
pub(super) fn guarded(operator: Operator, limits: Limits) -> Operator {
    operator
        .layer(TimeoutLayer::new().with_timeout(limits.timeout).with_io_timeout(limits.transfer_timeout))
        .layer(
            RetryLayer::new()
                .with_max_times(limits.attempts_max.saturating_sub(1))
                .with_min_delay(Duration::from_millis(100))
                .with_max_delay(Duration::from_secs(3))
                .with_jitter(),
        )
        .layer(ConcurrentLimitLayer::new(limits.concurrency_max))
}

/// Lets only so many requests through at once; time and attempts are the caller's.
pub(super) fn limited(operator: Operator, limits: Limits) -> Operator {
    operator.layer(ConcurrentLimitLayer::new(limits.concurrency_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_azure_container_is_found_by_host_endpoint_or_account() {
        let place = |host, endpoint: Option<&str>, account: Option<&str>| {
            let access = AzblobAccess {
                endpoint: endpoint.map(str::to_owned),
                account: account.map(str::to_owned),
                ..AzblobAccess::default()
            };
            azblob_place(host, &access)
        };
        let found = |endpoint: &str, account: &str| Some((endpoint.to_owned(), account.to_owned()));
        assert_eq!(place(None, None, None), None);
        assert_eq!(place(None, None, Some("acc")), found("https://acc.blob.core.windows.net", "acc"));
        assert_eq!(
            place(Some("b.blob.core.windows.net"), None, Some("acc")),
            found("https://b.blob.core.windows.net", "b")
        );
        assert_eq!(place(None, Some("http://127.0.0.1:1/dev/"), Some("dev")), found("http://127.0.0.1:1/dev", "dev"));
        assert_eq!(
            place(None, Some("https://c.blob.core.windows.net"), None),
            found("https://c.blob.core.windows.net", "c")
        );
    }
}
