//! Waits for the next look at a route: until its time has come, the kernel tells of a change, or somebody asks for it.

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::fs::Timespec;
use rustix::fs::inotify;
use std::path::Path;
use std::time::Duration;

/// What wakes a watcher. Everything in here is a hint: where the kernel gives none, time alone wakes it.
pub(in crate::serve) struct Waker {
    /// Written to by whoever wants a look now.
    asked: Option<OwnedFd>,
    /// Changes in local folders.
    changed: Option<OwnedFd>,
}

impl Waker {
    pub(super) fn new(is_local: bool) -> Self {
        let asked = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok();
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let changed = is_local.then(|| inotify::init(flags).ok()).flatten();
        Self { asked, changed }
    }

    /// Asks for a look now.
    pub(in crate::serve) fn wake(&self) {
        if let Some(asked) = &self.asked {
            // A counter that is full wakes as well.
            let _ = rustix::io::write(asked, &1u64.to_ne_bytes());
        }
    }

    /// Hears of changes in a folder from now on; doing so again changes nothing.
    pub(super) fn watch(&self, folder: &Path) {
        use inotify::WatchFlags as On;
        if let Some(changed) = &self.changed {
            let events = On::CLOSE_WRITE | On::MOVED_TO | On::CREATE | On::ONLYDIR;
            // Too many watches, a file system without them: time alone wakes then.
            let _ = inotify::add_watch(changed, folder, events);
        }
    }

    /// Waits for one of them, at most for `timeout`.
    pub(super) fn wait(&self, timeout: Duration) {
        let fds: Vec<&OwnedFd> = self.asked.iter().chain(&self.changed).collect();
        let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::IN)).collect();
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let timeout = Timespec { tv_sec: seconds, tv_nsec: i64::from(timeout.subsec_nanos()) };
        // An interruption is one look too many.
        let _ = poll(&mut polled, Some(&timeout));
        let mut buffer = [0; 4096];
        for fd in fds {
            while rustix::io::read(fd, &mut buffer).is_ok_and(|read| read == buffer.len()) {}
        }
    }
}
