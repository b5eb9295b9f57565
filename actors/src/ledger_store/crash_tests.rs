//! Power is lost after every operation on files: what was acknowledged is there, nothing is torn.
//!
//! [`CrashFiles`] keeps, beside what programs see, what a disk must have: bytes of a file once its data
//! was synced, changes of names once their folder was. At a loss of power every other change happened
//! or not, each by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use restyle_engine::ledger::{
    Digest, Ledger, LedgerError, LedgerErrorKind, PackPolicy, PackedItem, PublishedOutput, SegmentHeader, SourceHash,
};
use restyle_engine::random::Random;
use restyle_engine::{ItemIndex, JobId, ManualClock, SegmentIndex};
use serde_json::json;

use super::*;

const ROOT: &str = "/root";

#[derive(Clone, Default)]
struct CrashFiles {
    state: Arc<Mutex<Disk>>,
}

#[derive(Default)]
struct Disk {
    inodes: Vec<Inode>,
    /// What programs see: a path names an inode, or a folder.
    names: BTreeMap<PathBuf, Node>,
    /// What is durable.
    durable_names: BTreeMap<PathBuf, Node>,
    /// Changes of names since, in order: a path and what it names now.
    changes: Vec<(PathBuf, Option<Node>)>,
    operations: u64,
    power_until: Option<u64>,
    temp_files: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

#[derive(Default, Clone)]
struct Inode {
    bytes: Vec<u8>,
    synced_bytes: usize,
}

impl CrashFiles {
    fn new() -> Self {
        let files = Self::default();
        let root = (PathBuf::from(ROOT), Node::Folder);
        files.lock().names.extend([root.clone()]);
        files.lock().durable_names.extend([root]);
        files
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.state.lock().unwrap()
    }

    /// Lets so many more changes happen.
    fn lose_power_after(&self, operations: u64) {
        let mut disk = self.lock();
        disk.power_until = Some(disk.operations + operations);
    }

    fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// The files as they may be found after a loss of power now.
    fn restarted(&self, random: &mut Random) -> CrashFiles {
        let disk = self.lock();
        let mut names = disk.durable_names.clone();
        for (path, node) in &disk.changes {
            if random.happens(500) {
                match node {
                    Some(node) => names.insert(path.clone(), *node),
                    None => names.remove(path),
                };
            }
        }
        // What lies in a folder that is not there is not there.
        let folders: BTreeSet<PathBuf> =
            names.iter().filter(|(_, node)| **node == Node::Folder).map(|(path, _)| path.clone()).collect();
        let is_reachable =
            |path: &Path| path.ancestors().skip(1).all(|above| above == Path::new("/") || folders.contains(above));
        names.retain(|path, _| is_reachable(path));
        let mut inodes = disk.inodes.clone();
        for inode in &mut inodes {
            let unsynced = (inode.bytes.len() - inode.synced_bytes) as u64;
            inode.bytes.truncate(inode.synced_bytes + random.below(unsynced + 1) as usize);
            if random.happens(300) {
                inode.bytes[inode.synced_bytes..].fill(0);
            }
            inode.synced_bytes = inode.bytes.len();
        }
        let restarted =
            Disk { inodes, durable_names: names.clone(), names, temp_files: disk.temp_files, ..Disk::default() };
        CrashFiles { state: Arc::new(Mutex::new(restarted)) }
    }

    fn change<T>(&self, act: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.lock();
        if disk.power_until.is_some_and(|until| disk.operations >= until) {
            return Err(io::Error::other("the power is lost"));
        }
        disk.operations += 1;
        act(&mut disk)
    }
}

impl Disk {
    fn name(&mut self, path: &Path, node: Option<Node>) {
        match node {
            Some(node) => self.names.insert(path.to_owned(), node),
            None => self.names.remove(path),
        };
        self.changes.push((path.to_owned(), node));
    }

    fn create(&mut self, path: &Path) -> io::Result<usize> {
        if self.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if self.names.get(path.parent().unwrap()) != Some(&Node::Folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.inodes.push(Inode::default());
        let inode = self.inodes.len() - 1;
        self.name(path, Some(Node::File(inode)));
        Ok(inode)
    }
}

impl Files for CrashFiles {
    type Open = usize;

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        self.change(|disk| {
            if !disk.names.contains_key(folder) {
                disk.name(folder, Some(Node::Folder));
            }
            Ok(())
        })
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.change(|disk| {
            let (synced, left) =
                std::mem::take(&mut disk.changes).into_iter().partition(|(path, _)| path.parent() == Some(folder));
            disk.changes = left;
            let synced: Vec<(PathBuf, Option<Node>)> = synced;
            for (path, node) in synced {
                match node {
                    Some(node) => disk.durable_names.insert(path, node),
                    None => disk.durable_names.remove(&path),
                };
            }
            Ok(())
        })
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        self.change(|disk| {
            if disk.names.keys().any(|path| path != folder && path.starts_with(folder)) {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            disk.name(folder, None);
            Ok(())
        })
    }

    fn create_temp(&self, folder: &Path) -> io::Result<(usize, PathBuf)> {
        self.change(|disk| {
            disk.temp_files += 1;
            let path = folder.join(disk.temp_files.to_string());
            Ok((disk.create(&path)?, path))
        })
    }

    fn sweep_temp(&self, folder: &Path) -> io::Result<()> {
        self.change(|disk| {
            let below: Vec<PathBuf> = disk.names.keys().filter(|path| path.parent() == Some(folder)).cloned().collect();
            below.iter().for_each(|path| disk.name(path, None));
            Ok(())
        })
    }

    fn create_new(&self, path: &Path) -> io::Result<usize> {
        self.change(|disk| disk.create(path))
    }

    fn append(&self, file: &mut usize, bytes: &[u8]) -> io::Result<()> {
        self.change(|disk| {
            disk.inodes[*file].bytes.extend_from_slice(bytes);
            Ok(())
        })
    }

    fn truncate(&self, file: &mut usize, bytes: u64) -> io::Result<()> {
        self.change(|disk| {
            disk.inodes[*file].bytes.truncate(bytes as usize);
            Ok(())
        })
    }

    fn sync_data(&self, file: &mut usize) -> io::Result<()> {
        self.change(|disk| {
            let inode = &mut disk.inodes[*file];
            inode.synced_bytes = inode.bytes.len();
            Ok(())
        })
    }

    fn give_name(&self, from: &Path, to: &Path) -> io::Result<Creation> {
        self.change(|disk| {
            if disk.names.contains_key(to) {
                return Ok(Creation::Exists);
            }
            let node = *disk.names.get(from).ok_or(io::ErrorKind::NotFound)?;
            disk.name(to, Some(node));
            Ok(Creation::Created)
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|disk| {
            if disk.names.contains_key(path) {
                disk.name(path, None);
            }
            Ok(())
        })
    }

    fn read(&self, path: &Path, offset: u64, bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let disk = self.lock();
        let Some(Node::File(inode)) = disk.names.get(path) else { return Ok(None) };
        let read = disk.inodes[*inode].bytes.iter().skip(offset as usize).take(bytes as usize);
        Ok(Some(read.copied().collect()))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Listed>> {
        let disk = self.lock();
        let below = disk.names.iter().filter(|(path, _)| path.parent() == Some(folder));
        let entry = |(path, node): (&PathBuf, &Node)| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some(match node {
                _ if name.starts_with('.') => return None,
                Node::Folder => Listed::Folder(name),
                Node::File(inode) => Listed::File(name, disk.inodes[*inode].bytes.len() as u64),
            })
        };
        Ok(below.filter_map(entry).collect())
    }
}

/// How far a job came, as it was told by its own calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Acknowledged {
    segments: BTreeSet<SegmentIndex>,
    packed: BTreeSet<ItemIndex>,
    is_out: bool,
}

const SEGMENTS: u32 = 3;
const ITEMS: u32 = 4;

fn header(segment: u32) -> SegmentHeader {
    SegmentHeader {
        segment: SegmentIndex(segment),
        items: ITEMS,
        previous: segment.checked_sub(1).map(SegmentIndex),
        next: (segment + 1 < SEGMENTS).then_some(SegmentIndex(segment + 1)),
        first_pts: i64::from(segment) * 100,
        last_pts: i64::from(segment) * 100 + 3,
        last_hash: SourceHash(u128::from(segment)),
        writer: "w".to_owned(),
    }
}

fn payload(segment: u32, item: u32) -> Vec<u8> {
    vec![(segment * ITEMS + item) as u8; 50]
}

fn output() -> PublishedOutput {
    PublishedOutput { output: "o".to_owned(), bytes: 1, blake3: Digest::of(b"o"), items: 12 }
}

/// Runs a job on these files, from wherever it stands, as far as the power lasts.
fn run(files: &CrashFiles, writer: &str, acknowledged: &mut Acknowledged) -> Result<(), LedgerError> {
    let opened = FolderStore::open(PathBuf::from(ROOT), files.clone());
    let store = opened.map_err(|error| store_error(StoreOperation::Open, ROOT, &error))?;
    let ledger = Ledger::new(Arc::new(store), JobId::new([9; 32]), writer);
    ledger.open_or_create_job(&json!({}))?;
    let plan = ledger.fix_plan(&json!({"crf": 18}))?.value;
    if ledger.out()?.is_none() {
        let segments = ledger.segments(&plan);
        let scan = segments.scan()?;
        let adopted = segments.adopt(&scan)?;
        for segment in (0..SEGMENTS).map(SegmentIndex).filter(|segment| !scan.finished.contains_key(segment)) {
            ledger.begin_attempt(segment, 0, false)?;
            let clock = ManualClock::shared();
            let policy = PackPolicy { pack_bytes_max: 600, ..PackPolicy::default() };
            let mut pack = segments.pack_writer(segment, policy, clock.clone());
            let found = adopted.get(&segment).cloned().unwrap_or_default();
            for item in (0..ITEMS).filter(|item| !found.items.contains_key(&ItemIndex(*item))) {
                let packed = PackedItem { index: ItemIndex(item), pts: i64::from(item), source: SourceHash(1) };
                pack.append(&packed, &payload(segment.0, item))?;
                // The second item is synced, the third fills the pack.
                if item == 0 {
                    clock.advance(Duration::from_secs(1));
                }
                if segment.0 == 1 && pack.items_durable() > acknowledged.packed.len() as u64 {
                    acknowledged.packed.extend((0..=item).map(ItemIndex));
                }
            }
            segments.commit(&header(segment.0), &payload(segment.0, 99))?;
            acknowledged.segments.insert(segment);
            segments.drop_packs(segment)?;
        }
        ledger.intend(&output())?;
        ledger.record_out(&output())?;
    }
    acknowledged.is_out = true;
    ledger.collect_garbage()?;
    Ok(())
}

/// What must hold of the files after a loss of power.
fn check(files: &CrashFiles, acknowledged: &Acknowledged, moment: &str) {
    let store = FolderStore::open(PathBuf::from(ROOT), files.clone()).unwrap();
    let ledger = Ledger::new(Arc::new(store.clone()), JobId::new([9; 32]), "observer");
    for entry in store.list("").unwrap() {
        if !entry.key.contains("pack-") {
            let bytes = store.get(&entry.key).unwrap().unwrap();
            assert!(bytes.len() > 50 && bytes.iter().any(|byte| *byte != 0), "{moment}: {} is torn", entry.key);
        }
    }
    if acknowledged.is_out {
        assert_eq!(ledger.out().unwrap(), Some(output()), "{moment}");
        return;
    }
    let Some(plan) = ledger.plan().unwrap() else {
        assert_eq!(*acknowledged, Acknowledged::default(), "{moment}: the plan is lost");
        return;
    };
    if ledger.out().unwrap().is_some() {
        return;
    }
    let segments = ledger.segments(&plan);
    let scan = segments.scan().unwrap();
    assert_eq!(scan.rejected, [], "{moment}");
    for segment in &acknowledged.segments {
        assert_eq!(scan.finished.get(segment), Some(&header(segment.0)), "{moment}");
        assert_eq!(segments.load(*segment).unwrap().payload, payload(segment.0, 99), "{moment}");
    }
    if !scan.finished.contains_key(&SegmentIndex(1)) && !acknowledged.packed.is_empty() {
        let adopted = &segments.adopt(&scan).unwrap()[&SegmentIndex(1)];
        for index in &acknowledged.packed {
            let bytes = segments.read_adopted(&adopted.items[index]).unwrap().unwrap();
            assert_eq!(bytes, payload(1, index.0), "{moment}");
        }
    }
}

#[test]
fn whenever_power_is_lost_what_was_acknowledged_is_there_and_the_job_goes_on() {
    let whole = CrashFiles::new();
    run(&whole, "w", &mut Acknowledged::default()).unwrap();
    let operations = whole.operations();
    assert!(operations > 100, "{operations}");
    for lost_after in 0..operations {
        for seed in 0..6 {
            let mut random = Random::new(lost_after * 100 + seed);
            let files = CrashFiles::new();
            files.lose_power_after(lost_after);
            let mut acknowledged = Acknowledged::default();
            match run(&files, "w", &mut acknowledged) {
                // Only the removal of an emptied folder came after the end.
                Ok(()) => assert!(acknowledged.is_out && lost_after + 5 > operations, "{lost_after}"),
                Err(stopped) => assert!(matches!(stopped.kind(), LedgerErrorKind::Store(_)), "{stopped}"),
            }
            let files = files.restarted(&mut random);
            check(&files, &acknowledged, &format!("power lost after {lost_after} of {operations}, seed {seed}"));
            // Lost once more while it recovers, then left alone.
            files.lose_power_after(random.below(operations));
            let again = run(&files, "v", &mut acknowledged);
            let files = files.restarted(&mut random);
            check(&files, &acknowledged, &format!("power lost after {lost_after} and again, seed {seed}: {again:?}"));
            run(&files, "u", &mut acknowledged).unwrap();
            assert!(acknowledged.is_out);
        }
    }
}
