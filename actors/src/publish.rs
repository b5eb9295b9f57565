//! Publishing: a staged file becomes the output in one step, or not at all.
//!
//! Nothing half-written is ever seen under the output's name. Locally the bytes are first complete and synced in the
//! output's own folder, as a hard link to the staged file or as a hidden copy, and get their name last. Without
//! `overwrite` the name is taken only if it is free, by the file system itself. An object store shows an object when it is
//! complete, and takes a free name only by a condition on the request. The staged file stays where it is.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with, statvfs};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::join::digest;
use crate::storage::{Location, MemoryStore};
use crate::{ActorError, Result};

mod remote;

/// An object that stands at an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingOutput {
    /// Its size.
    pub bytes: u64,
    /// Its blake3, in hex.
    pub blake3: String,
}

/// Returns size and digest of what stands at an output; `None` where nothing does. Blocks; reads all of it, except where
/// an object store tells the digest that publishing put beside it.
///
/// # Errors
/// `Usage` where a folder stands there, `Storage` where it cannot be read, `Config` for a bucket that cannot be reached as
/// configured.
pub fn existing(output: &Location) -> Result<Option<ExistingOutput>> {
    match output {
        Location::File(path) => existing_file(path),
        Location::Memory { store, key } => Ok(store.get(key)?.map(|bytes| ExistingOutput {
            bytes: bytes.len() as u64,
            blake3: blake3::hash(&bytes).to_hex().to_string(),
        })),
        Location::Remote(object) => remote::existing(object),
    }
}

fn existing_file(path: &Path) -> Result<Option<ExistingOutput>> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(is_folder(path)),
        Ok(metadata) if !metadata.is_file() => Err(ActorError::Usage(format!(
            "output {} is neither a file nor free: pipes and devices cannot be written atomically; name a file",
            path.display()
        ))),
        Ok(_) => digest(path).map(|(bytes, blake3)| Some(ExistingOutput { bytes, blake3 })),
        // A link that leads nowhere takes the name all the same.
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_ok() => {
            Err(ActorError::Usage(format!(
                "output {} is a link that leads nowhere; remove it or name another",
                path.display()
            )))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ActorError::storage(format!("cannot look at the output {}: {error}", path.display()))),
    }
}

/// Checks before any work that an output can be written: its folder is there, is a folder, and takes a new file. Blocks.
///
/// # Errors
/// `Usage` where the name is a folder's or empty, `Storage` where the folder is missing or read-only, `DiskFull`,
/// `Config` for a bucket that is not there or cannot be reached as configured.
pub fn check_writable(output: &Location) -> Result<()> {
    let path = match output {
        Location::File(path) => path,
        Location::Memory { .. } => return Ok(()),
        Location::Remote(object) => return remote::check_writable(object),
    };
    if path.is_dir() {
        return Err(is_folder(path));
    }
    let folder = folder_of(path);
    match std::fs::metadata(&folder) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            return Err(ActorError::storage(format!(
                "the output's folder {} is not a folder; name another",
                folder.display()
            )));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ActorError::storage(format!(
                "the output's folder {} does not exist; create it first",
                folder.display()
            )));
        }
        Err(error) => {
            return Err(ActorError::storage(format!(
                "cannot look at the output's folder {}: {error}",
                folder.display()
            )));
        }
    }
    let trial = hidden_name(path);
    let made = File::options().write(true).create_new(true).open(&trial);
    let removed = made.and_then(|_| std::fs::remove_file(&trial));
    removed
        .map_err(|e| ActorError::from_write(&format!("cannot write into the output's folder {}", folder.display()), &e))
}

/// Checks that a folder's file system has room for so many more bytes. Blocks.
///
/// # Errors
/// `DiskFull` naming what is there and what is needed, `Storage` where the file system cannot be asked.
pub fn check_room(folder: &Path, bytes: u64) -> Result<()> {
    let stat = statvfs(folder).map_err(|e| {
        ActorError::storage(format!("cannot ask {} for its free room: {}", folder.display(), io::Error::from(e)))
    })?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= bytes {
        return Ok(());
    }
    Err(ActorError::DiskFull(format!(
        "{} has {} MiB free and {} MiB are needed; free some room and run the same command again",
        folder.display(),
        free >> 20,
        bytes.div_ceil(1 << 20)
    )))
}

/// Makes a staged file the output, atomically. Blocks.
///
/// # Errors
/// `Usage` where something stands there and `overwrite` is not set, or a folder does; `DiskFull` and `Storage` where the
/// output's folder or store cannot be written; `Config` for a bucket that cannot be reached as configured.
pub fn publish(staged: &Path, output: &Location, overwrite: bool) -> Result<()> {
    match output {
        Location::File(path) => publish_file(staged, path, overwrite),
        Location::Memory { store, key } => publish_object(staged, store, key, output, overwrite),
        Location::Remote(object) => remote::publish(staged, object, overwrite),
    }
}

fn publish_object(staged: &Path, store: &MemoryStore, key: &str, output: &Location, overwrite: bool) -> Result<()> {
    let bytes = std::fs::read(staged)
        .map_err(|e| ActorError::storage(format!("cannot read the joined file {}: {e}", staged.display())))?;
    if overwrite {
        return store.put(key, bytes);
    }
    if store.put_new(key, bytes)? { Ok(()) } else { Err(is_taken(&output.to_string())) }
}

fn publish_file(staged: &Path, path: &Path, overwrite: bool) -> Result<()> {
    if path.is_dir() {
        return Err(is_folder(path));
    }
    let failed = |e: io::Error| ActorError::from_write(&format!("cannot publish {}", path.display()), &e);
    File::open(staged).and_then(|file| file.sync_all()).map_err(failed)?;
    sweep(path);
    let hidden = Hidden(hidden_name(path));
    if let Err(error) = std::fs::hard_link(staged, &hidden.0) {
        // Another file system, or one without links: the bytes go there as a copy.
        tracing::debug!(%error, "no hard link to the staged file, copying it");
        let bytes = std::fs::metadata(staged).map_err(failed)?.len();
        check_room(&folder_of(path), bytes)?;
        copy_synced(staged, &hidden.0).map_err(failed)?;
    }
    name_it(&hidden.0, path, overwrite).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => is_taken(&path.display().to_string()),
        _ => failed(e),
    })?;
    drop(hidden);
    File::open(folder_of(path)).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// Gives complete bytes their name: the last step, and the only one that readers see.
fn name_it(hidden: &Path, path: &Path, overwrite: bool) -> io::Result<()> {
    if overwrite {
        return std::fs::rename(hidden, path);
    }
    match std::fs::hard_link(hidden, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            renameat_with(CWD, hidden, CWD, path, RenameFlags::NOREPLACE).map_err(io::Error::from)
        }
        done => done,
    }
}

fn copy_synced(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut copy = File::options().write(true).create_new(true).open(to)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            return copy.sync_all();
        }
        copy.write_all(&buffer[..count])?;
    }
}

/// A file under a hidden name that is removed in any case; gone already where renaming used it up.
struct Hidden(PathBuf);

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Returns a name in the output's folder that no reader takes for the output: hidden, and this process's own.
fn hidden_name(path: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut name = OsString::from(hidden_prefix(path));
    name.push(format!("{}-{number}.restyle", std::process::id()));
    folder_of(path).join(name)
}

/// What the hidden names of an output have in common.
fn hidden_prefix(path: &Path) -> String {
    // Names have a limit of 255 bytes; a prefix of it tells people enough.
    let own: String = path.file_name().unwrap_or_default().to_string_lossy().chars().take(40).collect();
    format!(".{own}.")
}

/// Removes hidden copies that killed processes left beside an output. What cannot be removed costs space and nothing else.
fn sweep(path: &Path) {
    let prefix = hidden_prefix(path);
    let left_by_the_dead = |name: &str| {
        let writer = name.strip_prefix(&prefix)?.strip_suffix(".restyle")?.split_once('-')?.0;
        let pid = Pid::from_raw(writer.parse().ok()?)?;
        (test_kill_process(pid) == Err(Errno::SRCH)).then_some(())
    };
    for entry in std::fs::read_dir(folder_of(path)).into_iter().flatten().flatten() {
        if entry.file_name().to_str().and_then(left_by_the_dead).is_some() {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn is_folder(path: &Path) -> ActorError {
    ActorError::Usage(format!("output {} is a folder; name a file in it", path.display()))
}

fn is_taken(shown: &str) -> ActorError {
    ActorError::Usage(format!("{shown} is there already; name another output or add --overwrite"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn staged(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("staged");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn output_appears_whole_and_staged_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (staged, output) = (staged(folder.path(), "film"), folder.path().join("out.mp4"));
        let location = Location::File(output.clone());
        assert_eq!(existing(&location).unwrap(), None);
        publish(&staged, &location, false).unwrap();
        assert_eq!(std::fs::read_to_string(&output).unwrap(), "film");
        assert_eq!(names(folder.path()), ["out.mp4", "staged"]);
        let found = existing(&location).unwrap().unwrap();
        assert_eq!((found.bytes, found.blake3), (4, blake3::hash(b"film").to_hex().to_string()));
    }

    #[test]
    fn foreign_output_is_refused_unless_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let (staged, output) = (staged(folder.path(), "film"), folder.path().join("out.mp4"));
        std::fs::write(&output, "foreign").unwrap();
        let location = Location::File(output.clone());
        let error = publish(&staged, &location, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("--overwrite"), "{error}");
        assert_eq!(std::fs::read_to_string(&output).unwrap(), "foreign");
        publish(&staged, &location, true).unwrap();
        assert_eq!(std::fs::read_to_string(&output).unwrap(), "film");
        assert_eq!(names(folder.path()), ["out.mp4", "staged"]);
    }

    #[test]
    fn another_file_system_gets_a_copy() {
        // /dev/shm is a file system of its own on Linux, so that hard links into it fail.
        let shm = Path::new("/dev/shm");
        let Ok(folder) = tempfile::tempdir_in(shm) else {
            println!("skipped: no writable /dev/shm");
            return;
        };
        let home = tempfile::tempdir().unwrap();
        let (staged, output) = (staged(home.path(), "film"), folder.path().join("out.mp4"));
        publish(&staged, &Location::File(output.clone()), false).unwrap();
        assert_eq!(std::fs::read_to_string(&output).unwrap(), "film");
        assert_eq!(publish(&staged, &Location::File(output), false).unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(names(folder.path()), ["out.mp4"]);
    }

    #[test]
    fn copies_of_killed_processes_go_and_those_of_living_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (staged, output) = (staged(folder.path(), "film"), folder.path().join("out.mp4"));
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let (dead, living) = (ended.id(), std::process::id());
        let kept =
            [format!(".out.mp4.{living}-900.restyle"), format!(".other.mp4.{dead}-0.restyle"), ".out.mp4.x".to_owned()];
        kept.iter().for_each(|name| std::fs::write(folder.path().join(name), "").unwrap());
        std::fs::write(folder.path().join(format!(".out.mp4.{dead}-3.restyle")), "half").unwrap();
        publish(&staged, &Location::File(output), false).unwrap();
        let mut expected = kept.to_vec();
        expected.extend(["out.mp4".to_owned(), "staged".to_owned()]);
        expected.sort();
        assert_eq!(names(folder.path()), expected);
    }

    #[test]
    fn missing_and_wrong_folders_are_named_before_work() {
        let folder = tempfile::tempdir().unwrap();
        let check = |path: PathBuf, kind: ErrorKind, text: &str| {
            let error = check_writable(&Location::File(path)).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(text), "{error}");
        };
        std::fs::write(folder.path().join("file"), "").unwrap();
        check(folder.path().join("no/out.mp4"), ErrorKind::Storage, "does not exist");
        check(folder.path().join("file/out.mp4"), ErrorKind::Storage, "folder");
        check(folder.path().to_path_buf(), ErrorKind::Usage, "is a folder");
        check_writable(&Location::File(folder.path().join("out.mp4"))).unwrap();
        assert_eq!(names(folder.path()), ["file"]);
        assert_eq!(
            publish(&folder.path().join("file"), &Location::File(folder.path().to_path_buf()), true)
                .unwrap_err()
                .kind(),
            ErrorKind::Usage
        );
    }

    #[test]
    fn read_only_folder_is_refused() {
        // The kernel's own file system takes no new files, even from root.
        let error = check_writable(&Location::File("/proc/self/out.mp4".into())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
    }

    #[test]
    fn room_is_compared_with_need() {
        let folder = tempfile::tempdir().unwrap();
        check_room(folder.path(), 1).unwrap();
        assert_eq!(check_room(folder.path(), u64::MAX).unwrap_err().kind(), ErrorKind::DiskFull);
    }

    #[test]
    fn memory_objects_are_published_once() {
        let folder = tempfile::tempdir().unwrap();
        let staged = staged(folder.path(), "film");
        let location = MemoryStore::new().unwrap().location("a/out.mp4");
        check_writable(&location).unwrap();
        publish(&staged, &location, false).unwrap();
        assert_eq!(existing(&location).unwrap().unwrap().bytes, 4);
        assert_eq!(publish(&staged, &location, false).unwrap_err().kind(), ErrorKind::Usage);
        publish(&staged, &location, true).unwrap();
    }
}
