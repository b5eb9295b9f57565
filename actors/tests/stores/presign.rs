//! Signed URLs grant one right on one object, as the servers see it.

use std::net::SocketAddr;
use std::time::Duration;

use restyle_actors::ErrorKind;
use restyle_actors::storage::{Location, SignedUrl, UrlRight};

use crate::servers::http;
use crate::{at, azblob_access, azurite, s3_access, seaweedfs};

const LIFETIME: Duration = Duration::from_secs(300);

fn send(
    address: SocketAddr,
    url: &SignedUrl,
    method: &str,
    other_key: Option<(&str, &str)>,
    body: &[u8],
) -> (u16, Vec<u8>) {
    let path = url.expose().split_once("://").unwrap().1.split_once('/').unwrap().1;
    let path = other_key.map_or_else(|| path.to_owned(), |(from, to)| path.replace(from, to));
    let headers: Vec<_> = url.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    http(address, method, &format!("/{path}"), &headers, body).unwrap()
}

fn grants_one_right(address: SocketAddr, object: &Location) {
    let write = object.presign(UrlRight::Create, LIFETIME).unwrap();
    let read = object.presign(UrlRight::Read, LIFETIME).unwrap();
    assert!(!format!("{write:?}{read:?}").contains("http"), "a signed url is not shown");
    let refused = |status: u16| matches!(status, 401 | 403 | 404);
    let (status, said) = send(address, &write, "PUT", None, b"content");
    assert!(matches!(status, 200 | 201), "{status} {}", String::from_utf8_lossy(&said));
    assert_eq!(send(address, &read, "GET", None, b""), (200, b"content".to_vec()));
    assert!(matches!(send(address, &write, "PUT", None, b"other").0, 403 | 409 | 412), "making is not replacing");
    // With all that a write needs but the right to.
    let mut reading = read.clone();
    reading.headers.clone_from(&write.headers);
    let (status, said) = send(address, &reading, "PUT", None, b"other");
    assert!(refused(status), "reading is not writing: {status} {}", String::from_utf8_lossy(&said));
    assert!(refused(send(address, &write, "DELETE", None, b"").0), "writing is not deleting");
    assert!(refused(send(address, &write, "GET", None, b"").0), "writing is not reading");
    assert!(refused(send(address, &write, "PUT", Some(("mine", "yours")), b"x").0), "one object");
    assert!(refused(send(address, &read, "GET", Some(("mine", "yours")), b"").0), "one object");
    assert_eq!(send(address, &read, "GET", None, b"").1, b"content");
}

#[test]
fn s3_urls_grant_one_right_on_one_object() {
    let Some(s3) = seaweedfs() else { return };
    let access = s3_access(&s3.endpoint());
    grants_one_right(s3.s3, &at(&format!("s3://{}/a/mine.mp4", s3.bucket("signed")), &access));
}

#[test]
fn azure_urls_grant_one_right_on_one_blob_and_not_the_account() {
    let Some(azurite) = azurite() else { return };
    assert!(azurite.container("signed"));
    let access = azblob_access(&azurite.endpoint());
    let object = at("azblob://signed/a/mine ü.mp4", &access);
    grants_one_right(azurite.blob, &object);
    let url = object.presign(UrlRight::Read, LIFETIME).unwrap();
    let asked = url.expose().split_once('?').unwrap().1;
    assert!(asked.contains("sr=b") && asked.contains("sp=r&") && !asked.contains("ss="), "scope of the signature");
    // A signature that was given to this process grants whatever it grants, so it is not handed on.
    let given = at(&format!("azblob://signed/mine.mp4?{asked}"), &access);
    assert_eq!(given.presign(UrlRight::Read, LIFETIME).unwrap_err().kind(), ErrorKind::Config);
}

#[test]
fn a_signature_in_a_url_is_used_and_grants_what_it_grants() {
    let Some(azurite) = azurite() else { return };
    assert!(azurite.container("sas"));
    let access = azblob_access(&azurite.endpoint());
    let object = at("azblob://sas/clip.mp4", &access);
    let write = object.presign(UrlRight::Create, LIFETIME).unwrap();
    assert_eq!(send(azurite.blob, &write, "PUT", None, b"content").0, 201);
    let read = object.presign(UrlRight::Read, LIFETIME).unwrap();
    let query = read.expose().split_once('?').unwrap().1;
    let mut keyless = azblob_access(&azurite.endpoint());
    keyless.azblob.key = None;
    let blob = restyle_actors::Blob::open(&at(&format!("azblob://sas/clip.mp4?{query}"), &keyless)).unwrap();
    assert_eq!(blob.size(), 7);
    assert_eq!(blob.identity().url, "azblob://sas/clip.mp4", "no signature in what is kept");
}

#[test]
fn files_folders_and_long_lives_are_refused() {
    let access = s3_access("http://127.0.0.1:1");
    let kind = |location: Location, lifetime| location.presign(UrlRight::Read, lifetime).unwrap_err().kind();
    assert_eq!(kind(Location::File("/a.mp4".into()), LIFETIME), ErrorKind::Usage);
    assert_eq!(kind(at("s3://bucket/folder/", &access), LIFETIME), ErrorKind::Usage);
    assert_eq!(kind(at("s3://bucket/a", &access), Duration::from_secs(8 * 24 * 3600)), ErrorKind::Usage);
    assert_eq!(kind(at("s3://bucket/a", &access), Duration::ZERO), ErrorKind::Usage);
}

#[test]
fn a_signature_that_is_over_is_refused_and_not_shown() {
    let Some(azurite) = azurite() else { return };
    assert!(azurite.container("over"));
    let access = azblob_access(&azurite.endpoint());
    let write = at("azblob://over/clip.mp4", &access).presign(UrlRight::Create, Duration::from_secs(1)).unwrap();
    let query = write.expose().split_once('?').unwrap().1.to_owned();
    let mut keyless = access;
    keyless.azblob.key = None;
    let given = at(&format!("azblob://over/clip.mp4?{query}"), &keyless);
    restyle_engine::clock::Clock::sleep(&restyle_engine::clock::SystemClock::new(), Duration::from_secs(3));
    let mut upload = restyle_actors::storage::Upload::begin(&given, 100).unwrap().unwrap();
    let sent = upload.write(b"content".to_vec()).and_then(|()| upload.finish());
    let message = sent.unwrap_err().to_string();
    // Azure says that the time is over; Azurite says only that it may not.
    assert!(message.contains("permission denied") && message.contains("AZURE_STORAGE_SAS_TOKEN"), "{message}");
    assert!(!message.contains("sig="), "{message}");
}
