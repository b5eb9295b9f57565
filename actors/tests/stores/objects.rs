//! Inputs, outputs and listings.

use std::time::Duration;

use restyle_actors::storage::Folder;
use restyle_actors::{Blob, ErrorKind, publish};

use crate::servers::{Proxy, Treatment};
use crate::{at, every_store, s3_access, seaweedfs};

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n * 31 % 251) as u8).collect()
}

fn staged(folder: &tempfile::TempDir, content: &[u8]) -> std::path::PathBuf {
    let path = folder.path().join("staged");
    std::fs::write(&path, content).unwrap();
    path
}

#[test]
fn what_is_published_is_listed_and_read_in_ranges() {
    let home = tempfile::tempdir().unwrap();
    // Larger than a piece of an upload, and no multiple of one.
    let content = bytes((11 << 20) + 17);
    let staged = staged(&home, &content);
    for (server, root, access) in every_store("publish") {
        let output = at(&format!("{root}/out/a b+ü.mp4"), &access);
        publish::check_writable(&output).unwrap_or_else(|e| panic!("{server}: {e}"));
        assert_eq!(publish::existing(&output).unwrap(), None, "{server}");
        // The emulator of GCS does not know the protocol of uploads in pieces.
        if server == "fake-gcs-server" {
            std::fs::write(&staged, &content[..1 << 20]).unwrap();
        }
        let content = std::fs::read(&staged).unwrap();
        publish::publish(&staged, &output, false).unwrap_or_else(|e| panic!("{server}: {e}"));
        let found = publish::existing(&output).unwrap().unwrap();
        assert_eq!(found.bytes, content.len() as u64, "{server}");
        assert_eq!(found.blake3, blake3::hash(&content).to_hex().to_string(), "{server}");

        let blob = Blob::open(&output).unwrap_or_else(|e| panic!("{server}: {e}"));
        assert_eq!(blob.size(), content.len() as u64);
        for (offset, count) in [(0, 10), (content.len() - 7, 100), (1 << 19, 70_000), (content.len(), 5)] {
            let mut part = vec![0; count];
            let read = blob.read_at(offset as u64, &mut part).unwrap();
            assert_eq!(part[..read], content[offset..(offset + count).min(content.len())], "{server} at {offset}");
        }
        let listing = Folder::new(at(&root, &access)).list(None, 10).unwrap_or_else(|e| panic!("{server}: {e}"));
        assert_eq!(listing.entries.len(), 1, "{server}: {listing:?}");
        let entry = &listing.entries[0];
        assert_eq!((entry.key.as_str(), entry.size), ("out/a b+ü.mp4", content.len() as u64), "{server}");
        assert!(entry.etag.is_some() && entry.modified.is_some(), "{server}: {entry:?}");
    }
}

#[test]
fn a_foreign_output_is_refused_and_ours_is_taken_for_done() {
    let home = tempfile::tempdir().unwrap();
    let ours = staged(&home, b"film");
    let theirs = home.path().join("theirs");
    std::fs::write(&theirs, "another").unwrap();
    // The emulator of GCS ignores the condition of the resumable uploads by which conditional writes go there.
    for (server, root, access) in every_store("foreign").into_iter().filter(|store| store.0 != "fake-gcs-server") {
        let output = at(&format!("{root}/out.mp4"), &access);
        publish::publish(&theirs, &output, false).unwrap_or_else(|e| panic!("{server}: {e}"));
        let error = publish::publish(&ours, &output, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{server}: {error}");
        assert_eq!(publish::existing(&output).unwrap().unwrap().bytes, 7, "{server}");
        publish::publish(&ours, &output, true).unwrap_or_else(|e| panic!("{server}: {e}"));
        assert_eq!(publish::existing(&output).unwrap().unwrap().bytes, 4, "{server}");
        // As after a kill between publishing and recording it.
        publish::publish(&ours, &output, false).unwrap_or_else(|e| panic!("{server}: {e}"));
    }
}

#[test]
fn folders_are_listed_in_bounded_pieces() {
    let home = tempfile::tempdir().unwrap();
    let small = staged(&home, b"x");
    for (server, root, access) in every_store("listing") {
        for key in ["in/a.mp4", "in/b/c.mp4", "in/z.mp4", "inn.mp4", "in/.part"] {
            publish::publish(&small, &at(&format!("{root}/{key}"), &access), false).unwrap();
        }
        let folder = Folder::new(at(&format!("{root}/in"), &access));
        let keys = |after, limit| {
            let listing = folder.list(after, limit).unwrap_or_else(|e| panic!("{server}: {e}"));
            (listing.entries.into_iter().map(|e| e.key).collect::<Vec<_>>().join(" "), listing.has_more)
        };
        assert_eq!(keys(None, 10), ("a.mp4 b/c.mp4 z.mp4".to_owned(), false), "{server}");
        assert_eq!(keys(None, 2), ("a.mp4 b/c.mp4".to_owned(), true), "{server}");
        assert_eq!(keys(Some("b/c.mp4"), 2), ("z.mp4".to_owned(), false), "{server}");
        assert_eq!(Blob::open(&folder.entry("z.mp4").unwrap()).unwrap().size(), 1, "{server}");
    }
}

#[test]
fn a_source_that_is_replaced_removed_or_missing_is_told_apart() {
    let home = tempfile::tempdir().unwrap();
    for (server, root, access) in every_store("replaced") {
        let source = at(&format!("{root}/clip.mp4"), &access);
        let missing = Blob::open(&source).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::InputUnreadable, "{server}: {missing}");
        let first = bytes(3 << 20);
        publish::publish(&staged(&home, &first), &source, false).unwrap();
        let blob = Blob::open(&source).unwrap();
        let mut part = vec![0; 1000];
        assert_eq!(blob.read_at(5, &mut part).unwrap(), 1000);
        // Of the same size, so that nothing but the version tells.
        let second: Vec<u8> = first.iter().map(|b| b ^ 1).collect();
        publish::publish(&staged(&home, &second), &source, true).unwrap();
        if server == "fake-gcs-server" {
            // It ignores conditions on reads; looking again is what is left there.
            assert_eq!(blob.verify().unwrap_err().kind(), ErrorKind::InputChanged, "{server}");
            continue;
        }
        let changed = blob.read_at(1 << 20, &mut part).unwrap_err();
        assert_eq!(changed.kind(), ErrorKind::InputChanged, "{server}: {changed}");
        assert_ne!(Blob::open(&source).unwrap().identity(), blob.identity(), "{server}");
    }
}

#[test]
fn a_missing_bucket_is_said_before_any_work() {
    let Some(s3) = seaweedfs() else { return };
    let access = s3_access(&s3.endpoint());
    let output = at("s3://no-such-bucket-here/out.mp4", &access);
    let error = publish::check_writable(&output).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
    assert!(error.to_string().contains("no-such-bucket-here"), "{error}");
    assert_eq!(Blob::open(&output).unwrap_err().kind(), ErrorKind::InputUnreadable);
    assert_eq!(publish::check_writable(&at("s3://b/folder/", &access)).unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
fn row_14_a_storm_of_refusals_is_outlived_and_a_lasting_one_given_up() {
    let Some(s3) = seaweedfs() else { return };
    let (home, bucket) = (tempfile::tempdir().unwrap(), s3.bucket("storm"));
    let content = bytes(6 << 20);
    let staged = staged(&home, &content);
    // Every request is refused at first, in turn for nothing at all and for being too many. Not more often: the last call of
    // an upload sends several requests, and its attempts are counted together.
    let asked = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let storm = Proxy::start(s3.s3, move |line, _| {
        let mut asked = asked.lock().unwrap();
        match (asked.insert(line.to_owned()), asked.len() % 2) {
            (true, 0) => Treatment::Refuse(503),
            (true, _) => Treatment::Refuse(429),
            (false, _) => Treatment::Pass,
        }
    });
    let output = at(&format!("s3://{bucket}/out.mp4"), &s3_access(&storm.endpoint()));
    publish::publish(&staged, &output, false).unwrap();
    assert_eq!(s3.get(&bucket, "out.mp4").unwrap(), content);
    assert_eq!(Blob::open(&output).unwrap().size(), content.len() as u64);
    assert!(storm.mistreated() >= 5, "{}", storm.mistreated());
    let lasting = Proxy::start(s3.s3, |_, _| Treatment::Refuse(503));
    let error = Blob::open(&at(&format!("s3://{bucket}/out.mp4"), &s3_access(&lasting.endpoint()))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
    assert_eq!(lasting.seen(), 6, "attempts are bounded");
}

#[test]
fn row_13_an_upload_whose_answers_are_lost_is_done_once() {
    let Some(s3) = seaweedfs() else { return };
    let (home, bucket) = (tempfile::tempdir().unwrap(), s3.bucket("lost"));
    for (name, size) in [("small.mp4", 1000), ("large.mp4", 7 << 20)] {
        let content = bytes(size);
        let staged = staged(&home, &content);
        // The first answer to every kind of write is lost.
        let asked = std::sync::Mutex::new(std::collections::BTreeSet::new());
        let losing = Proxy::start(s3.s3, move |line, _| {
            let kind = format!("{}{}{}", &line[..4], line.contains("uploadId"), line.contains("partNumber"));
            let is_write = !line.starts_with("GET") && !line.starts_with("HEAD");
            if is_write && asked.lock().unwrap().insert(kind) { Treatment::LoseAnswer } else { Treatment::Pass }
        });
        let output = at(&format!("s3://{bucket}/{name}"), &s3_access(&losing.endpoint()));
        publish::publish(&staged, &output, false).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(s3.get(&bucket, name).unwrap(), content, "{name}");
        assert!(losing.mistreated() >= 1);
    }
}

#[test]
fn row_15_a_store_that_never_answers_times_out_inside_the_attempts() {
    let Some(s3) = seaweedfs() else { return };
    let bucket = s3.bucket("hang");
    s3.put(&bucket, "clip.mp4", &bytes(5000));
    let hanging = |times: u64| {
        let proxy = Proxy::start(s3.s3, move |_, n| if n < times { Treatment::Hang } else { Treatment::Pass });
        let mut access = s3_access(&proxy.endpoint());
        access.limits.timeout = Duration::from_millis(500);
        access.limits.transfer_timeout = Duration::from_millis(500);
        access.limits.attempts_max = 3;
        (at(&format!("s3://{bucket}/clip.mp4"), &access), proxy)
    };
    let (source, proxy) = hanging(2);
    assert_eq!(Blob::open(&source).unwrap().size(), 5000);
    assert_eq!(proxy.mistreated(), 2);
    let (source, proxy) = hanging(u64::MAX);
    let error = Blob::open(&source).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
    assert_eq!(proxy.seen(), 3, "attempts are bounded");
}
