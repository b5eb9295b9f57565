//! Files that a command writes whole or not at all.

use crate::error::{Error, ErrorKind};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A place for a file, free or allowed to be replaced when the command began.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    overwrite: bool,
}

impl Place {
    /// Looks at where a file that is made from `input` is to go; changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where it is `input` itself, or stands there and `overwrite` does not allow it.
    pub(super) fn check(path: &Path, input: &Path, overwrite: bool) -> Result<Self, Error> {
        let usage = |why: String| Err(Error::new(ErrorKind::Usage, why));
        let resolved = path.canonicalize().ok();
        if resolved.is_some() && input.canonicalize().ok() == resolved {
            return usage(format!("input and output are both {}: name another output", path.display()));
        }
        // A link counts, wherever it leads.
        if !overwrite && path.symlink_metadata().is_ok() {
            return usage(format!("{} is there already: name another output or add --overwrite", path.display()));
        }
        if resolved.as_ref().is_some_and(|path| !path.is_file()) {
            return usage(format!("{} is no file: name another output", path.display()));
        }
        Ok(Self { path: resolved.unwrap_or_else(|| path.to_owned()), overwrite })
    }

    /// Writes the file beside its name and then gives it the name, durably; a kill leaves the old file or none.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where somebody else made one of the name meanwhile, else [`ErrorKind::Storage`].
    pub(super) fn fill(&self, bytes: &[u8]) -> Result<(), Error> {
        let beside = self.beside();
        let written = write_new(&beside, bytes).and_then(|()| self.name(&beside));
        written.map_err(|e| {
            // It may have its name already, or never have been made.
            let _ = std::fs::remove_file(&beside);
            let kind = if e.kind() == io::ErrorKind::AlreadyExists { ErrorKind::Usage } else { ErrorKind::Storage };
            Error::new(kind, format!("cannot write {}: {e}", self.path.display()))
        })
    }

    /// A hidden name of this process in the same folder, without the extension that readers look for.
    fn beside(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(format!(".{name}.{}.new", std::process::id()))
    }

    fn name(&self, beside: &Path) -> io::Result<()> {
        if self.overwrite {
            std::fs::rename(beside, &self.path)?;
        } else {
            match renameat_with(CWD, beside, CWD, &self.path, RenameFlags::NOREPLACE) {
                // A file system without the flag: that the name was free a moment ago must do.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => std::fs::rename(beside, &self.path)?,
                renamed => renamed?,
            }
        }
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // What a process of this number left behind when it was killed; no other one has the name.
    let _ = std::fs::remove_file(path);
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_whole_under_its_name_and_nothing_is_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let (input, path) = (folder.path().join("in"), folder.path().join("out"));
        std::fs::write(&input, b"in").unwrap();
        Place::check(&path, &input, false).unwrap().fill(b"first").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        let error = Place::check(&path, &input, false).unwrap_err();
        assert!(error.kind() == ErrorKind::Usage && error.to_string().contains("--overwrite"), "{error}");
        Place::check(&path, &input, true).unwrap().fill(b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(names(folder.path()), ["in", "out"]);
    }

    #[test]
    fn one_that_appears_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let place = Place::check(&path, &folder.path().join("in"), false).unwrap();
        std::fs::write(&path, b"another's").unwrap();
        assert_eq!(place.fill(b"ours").unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(std::fs::read(&path).unwrap(), b"another's");
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn the_input_and_folders_are_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (input, link) = (folder.path().join("in"), folder.path().join("link"));
        std::fs::write(&input, b"in").unwrap();
        std::os::unix::fs::symlink(&input, &link).unwrap();
        for path in [&input, &link, &folder.path().to_owned()] {
            assert_eq!(Place::check(path, &input, true).unwrap_err().kind(), ErrorKind::Usage, "{}", path.display());
        }
    }
}
