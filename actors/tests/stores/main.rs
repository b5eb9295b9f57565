//! Blobs, folders, publishing, the work store and signed URLs against real servers on loopback.

#[path = "../../../tests/support/servers.rs"]
mod servers;

mod ledger;
mod objects;
mod presign;
mod secrets;

use std::sync::OnceLock;
use std::time::Duration;

use restyle_actors::storage::{Access, AzblobAccess, GsAccess, Limits, Location, S3Access, S3Keys, Secret};
use servers::{AZURE_ACCOUNT, AZURE_KEY, Azurite, FakeGcs, S3_KEY, S3_SECRET, SeaweedFs};

/// Quick to give up, so that a test of giving up ends.
pub(crate) fn limits() -> Limits {
    Limits {
        timeout: Duration::from_secs(10),
        transfer_timeout: Duration::from_secs(10),
        attempts_max: 6,
        concurrency_max: 8,
    }
}

pub(crate) fn seaweedfs() -> Option<&'static SeaweedFs> {
    static SERVER: OnceLock<Option<SeaweedFs>> = OnceLock::new();
    SERVER.get_or_init(SeaweedFs::start).as_ref()
}

pub(crate) fn azurite() -> Option<&'static Azurite> {
    static SERVER: OnceLock<Option<Azurite>> = OnceLock::new();
    SERVER.get_or_init(Azurite::start).as_ref()
}

pub(crate) fn fake_gcs() -> Option<&'static FakeGcs> {
    static SERVER: OnceLock<Option<FakeGcs>> = OnceLock::new();
    SERVER.get_or_init(FakeGcs::start).as_ref()
}

pub(crate) fn s3_access(endpoint: &str) -> Access {
    let keys = S3Keys { access_key_id: S3_KEY.into(), secret_access_key: Secret::new(S3_SECRET), session_token: None };
    Access {
        s3: S3Access { endpoint: Some(endpoint.to_owned()), region: None, keys: Some(keys) },
        limits: limits(),
        ..Access::default()
    }
}

pub(crate) fn azblob_access(endpoint: &str) -> Access {
    Access {
        azblob: AzblobAccess {
            endpoint: Some(endpoint.to_owned()),
            account: Some(AZURE_ACCOUNT.into()),
            key: Some(Secret::new(AZURE_KEY)),
            sas: None,
        },
        limits: limits(),
        ..Access::default()
    }
}

pub(crate) fn at(url: &str, access: &Access) -> Location {
    Location::parse_with(url, || access.clone()).unwrap()
}

/// A prefix of its own, in a bucket of its own, of every server that can be had.
pub(crate) fn every_store(name: &str) -> Vec<(&'static str, String, Access)> {
    let mut stores = Vec::new();
    if let Some(s3) = seaweedfs() {
        stores.push(("SeaweedFS", format!("s3://{}", s3.bucket(name)), s3_access(&s3.endpoint())));
    }
    if let Some(azurite) = azurite() {
        let container = format!("{name}-{}", std::process::id());
        assert!(azurite.container(&container), "a container is made");
        stores.push(("Azurite", format!("azblob://{container}"), azblob_access(&azurite.endpoint())));
    }
    if let Some(gcs) = fake_gcs() {
        let access = Access {
            gs: GsAccess { endpoint: Some(gcs.endpoint()), token: None, is_anonymous: true },
            limits: limits(),
            ..Access::default()
        };
        stores.push(("fake-gcs-server", format!("gs://{}", gcs.bucket(name)), access));
    }
    stores
}
