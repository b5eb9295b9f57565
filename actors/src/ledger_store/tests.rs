//! The store on the system's files.

use std::fs;

use super::*;

fn store() -> (tempfile::TempDir, LocalStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::open(folder.path().join("work/state")).unwrap();
    (folder, store)
}

fn temp_files(store: &LocalStore) -> usize {
    fs::read_dir(store.root().join(TEMP_FOLDER)).unwrap().count()
}

#[test]
fn an_object_is_created_once_and_whole() {
    let (_folder, store) = store();
    assert_eq!(store.get("a/b/c").unwrap(), None);
    assert_eq!(store.create("a/b/c", b"first").unwrap(), Creation::Created);
    assert_eq!(store.create("a/b/c", b"second").unwrap(), Creation::Exists);
    assert_eq!(store.get("a/b/c").unwrap().unwrap(), b"first");
    assert_eq!(store.get_range("a/b/c", 2, 2).unwrap().unwrap(), b"rs");
    assert_eq!(store.get_range("a/b/c", 9, 2).unwrap().unwrap(), b"");
    assert_eq!(temp_files(&store), 0);
}

#[test]
fn lists_and_deletes_and_leaves_no_empty_folders() {
    let (_folder, store) = store();
    for key in ["jobs/a/s/1/seg", "jobs/a/s/10/seg", "jobs/a/plan.json", "jobs/b/plan.json"] {
        store.create(key, b"xy").unwrap();
    }
    let keys = |prefix| store.list(prefix).unwrap().into_iter().map(|e| e.key).collect::<Vec<_>>();
    assert_eq!(keys("jobs/a/s/"), ["jobs/a/s/1/seg", "jobs/a/s/10/seg"]);
    assert_eq!(keys("jobs/a/s/1/"), ["jobs/a/s/1/seg"]);
    assert_eq!(keys("jobs/a/pl"), ["jobs/a/plan.json"]);
    assert_eq!(keys("").len(), 4);
    assert_eq!(keys("none/"), [""; 0]);
    assert_eq!(store.list("jobs/b/").unwrap()[0].bytes, 2);
    for key in keys("") {
        store.delete(&key).unwrap();
        store.delete(&key).unwrap();
    }
    assert!(!store.root().join("jobs").exists());
    assert_eq!(store.create("jobs/a/s/1/seg", b"again").unwrap(), Creation::Created);
}

#[test]
fn of_racing_creates_exactly_one_wins_and_readers_see_it_whole() {
    let (_folder, store) = store();
    // Separate handles, as separate processes have.
    let handles: Vec<LocalStore> = (0..4).map(|_| LocalStore::open(store.root()).unwrap()).collect();
    for round in 0..100 {
        let key = format!("r/{}/x", round % 3);
        let race = &|n: usize| {
            let handle = &handles[n];
            // A neighbour that comes and goes takes the folder away whenever it can.
            handle.create(&format!("r/{}/y{n}", round % 3), b"").unwrap();
            handle.delete(&format!("r/{}/y{n}", round % 3)).unwrap();
            let creation = handle.create(&key, &vec![n as u8; 5000]).unwrap();
            let read = handle.get(&key).unwrap().unwrap();
            assert!(read.len() == 5000 && read.iter().all(|byte| *byte == read[0]));
            usize::from(creation == Creation::Created)
        };
        let won: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..handles.len()).map(|n| scope.spawn(move || race(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(won, 1, "round {round}");
        store.delete(&key).unwrap();
    }
    assert_eq!(temp_files(&store), 0);
}

#[test]
fn folders_that_vanish_are_made_again() {
    let (_folder, store) = store();
    store.create("a/b/c", b"1").unwrap();
    fs::remove_dir_all(store.root().join("a")).unwrap();
    fs::remove_dir_all(store.root().join(TEMP_FOLDER)).unwrap();
    assert_eq!(store.create("a/b/c", b"2").unwrap(), Creation::Created);
    fs::remove_dir_all(store.root().join("a")).unwrap();
    let mut log = store.open_log("a/b/d").unwrap().unwrap();
    log.append(b"x").unwrap();
    assert_eq!(log.seal("a/e/d").unwrap(), Creation::Created);
}

#[test]
fn a_log_grows_in_place_and_is_renamed_when_sealed() {
    let (_folder, store) = store();
    let mut log = store.open_log("s/1/p.open").unwrap().unwrap();
    log.append(b"one").unwrap();
    assert_eq!(store.get("s/1/p.open").unwrap().unwrap(), b"one");
    assert_eq!(store.open_log("s/1/p.open").err().unwrap().kind(), StoreErrorKind::Exists);
    log.append(b"two").unwrap();
    assert_eq!(log.seal("s/1/p").unwrap(), Creation::Created);
    let keys: Vec<_> = store.list("").unwrap().into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, ["s/1/p"]);
    assert_eq!(store.get("s/1/p").unwrap().unwrap(), b"onetwo");
    let other = store.open_log("s/1/q.open").unwrap().unwrap();
    assert_eq!(other.seal("s/1/p").unwrap(), Creation::Exists);
    assert_eq!(store.get("s/1/q.open").unwrap().unwrap(), b"");
}

#[test]
fn errors_say_what_a_caller_can_do() {
    let check = |errno: Errno, expected| {
        let error = store_error(StoreOperation::Create, "k", &errno.into());
        assert_eq!(error.kind(), expected, "{error}");
    };
    check(Errno::NOSPC, StoreErrorKind::DiskFull);
    check(Errno::DQUOT, StoreErrorKind::DiskFull);
    check(Errno::ROFS, StoreErrorKind::Permission);
    check(Errno::ACCESS, StoreErrorKind::Permission);
    check(Errno::STALE, StoreErrorKind::Transient);
    check(Errno::IO, StoreErrorKind::Other);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(LocalStore::open(file.join("work")).is_err());
}

/// A small file system of its own, where this machine lets one be mounted.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(kibibytes: u32) -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let size = format!("size={kibibytes}k");
        disk.command("mount", &["-t", "tmpfs", "-o", &size, "tmpfs"]).then_some(disk)
    }

    fn resize(&self, kibibytes: u32) {
        assert!(self.command("mount", &["-o", &format!("remount,size={kibibytes}k")]));
    }

    fn command(&self, program: &str, arguments: &[&str]) -> bool {
        let command = std::process::Command::new(program).args(arguments).arg(self.0.path()).output();
        command.is_ok_and(|output| output.status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.command("umount", &[]);
    }
}

#[test]
#[allow(clippy::print_stderr)]
fn a_full_disk_says_so_leaves_nothing_torn_and_serves_again_with_room() {
    let Some(disk) = SmallDisk::mount(256) else {
        eprintln!("skipped: this machine lets nobody mount a tmpfs");
        return;
    };
    let store = LocalStore::open(disk.0.path().join("work")).unwrap();
    store.create("a/small", &[1; 1000]).unwrap();
    assert_eq!(store.create("a/large", &[2; 1 << 20]).unwrap_err().kind(), StoreErrorKind::DiskFull);
    let mut log = store.open_log("a/log").unwrap().unwrap();
    assert_eq!(log.append(&[3; 1 << 20]).unwrap_err().kind(), StoreErrorKind::DiskFull);
    drop(log);
    store.delete("a/log").unwrap();
    assert_eq!(store.get("a/large").unwrap(), None);
    assert_eq!((store.list("").unwrap().len(), temp_files(&store)), (1, 0));
    disk.resize(4096);
    assert_eq!(store.create("a/large", &[2; 1 << 20]).unwrap(), Creation::Created);
    assert_eq!(store.get("a/large").unwrap().unwrap(), vec![2; 1 << 20]);
}
