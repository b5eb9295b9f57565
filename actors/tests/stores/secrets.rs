//! A planted secret shows up nowhere.

use restyle_actors::storage::{Access, Folder, Secret};
use restyle_actors::{Blob, publish};

use crate::servers::{Proxy, Treatment};
use crate::{at, azblob_access, limits, s3_access};

const PLANTED: &str = "plantedsecret";

/// Everything that a user of these locations can be shown.
fn shown(url: &str, access: &Access) -> String {
    let home = tempfile::tempdir().unwrap();
    let staged = home.path().join("staged");
    std::fs::write(&staged, "x").unwrap();
    let location = at(url, access);
    let mut text = format!("{location} {location:?}");
    let errors = [
        Blob::open(&location).map(drop).unwrap_err(),
        publish::publish(&staged, &location, false).unwrap_err(),
        publish::check_writable(&location).unwrap_err(),
        Folder::new(location.clone()).list(None, 1).map(drop).unwrap_err(),
    ];
    for error in errors {
        text += &format!(" {error} {error:?}");
    }
    let store = restyle_actors::ledger_store::RemoteStore::open(&location);
    text + &format!(" {store:?}")
}

#[test]
fn no_credential_is_shown_when_requests_fail() {
    let nobody = "http://127.0.0.1:9".parse::<std::net::SocketAddr>();
    assert!(nobody.is_err(), "an endpoint is a url");
    let refusing = Proxy::start("127.0.0.1:9".parse().unwrap(), |_, _| Treatment::Refuse(403));
    for endpoint in ["http://127.0.0.1:9".to_owned(), refusing.endpoint()] {
        let mut s3 = s3_access(&endpoint);
        s3.limits = restyle_actors::storage::Limits { attempts_max: 1, ..limits() };
        let keys = s3.s3.keys.as_mut().unwrap();
        keys.secret_access_key = Secret::new(PLANTED);
        keys.session_token = Some(Secret::new(PLANTED));
        let mut azure = azblob_access(&endpoint);
        azure.limits = s3.limits;
        azure.azblob.key = Some(Secret::new("cGxhbnRlZHNlY3JldA=="));
        for text in [
            shown("s3://bucket/a.mp4", &s3),
            shown("azblob://box/a.mp4", &azure),
            shown(&format!("azblob://box/a.mp4?sv=2021-06-08&sig={PLANTED}"), &azure),
        ] {
            assert!(!text.contains(PLANTED) && !text.contains("cGxhbnRlZHNlY3JldA"), "{text}");
        }
    }
}
