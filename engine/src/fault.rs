//! Named fault points, for rehearsals and tests.
//!
//! Code names the places where a fault would hurt most; a script arms some of them. Without the feature `faults` a point
//! is nothing at all. With it, a point that no script names costs one atomic read.
//!
//! A script is a list of `point=action`, parted by `;`. An action is `panic`, `pause` (until released), `abort` (the
//! process), `error` (only where the point can return one) or `delay(milliseconds)`. `N*action` acts at the N-th time the
//! point is reached, counted from when the script was armed; without it, every time. A point may be named repeatedly.
//!
//! ```text
//! scorer:before_process=1*panic;encode:frame=2*pause;store:synced=delay(50)
//! ```
//!
//! Of several rules for one point the first that applies acts, so `p=3*panic;p=delay(50)` delays every time but the third. Points that
//! belong to an item carry its number behind a colon, besides being reached without it: `score:17=abort`. Every action is
//! logged before it is taken.

/// A fault that a script put here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fault injected at {point}")]
pub struct InjectedFault {
    /// The point's name.
    pub point: String,
}

/// A place where a script may panic, pause, abort or delay.
///
/// # Panics
/// If the script says so, or asks for an error, which cannot be returned here.
#[inline(always)]
pub fn point(name: &str) {
    if let Err(fault) = fallible(name) {
        panic!("{fault}, which cannot return an error: arm it with panic, pause, abort or delay");
    }
}

/// A place that belongs to one item: reached as `name` and as `name:number`.
///
/// # Panics
/// If the script says so, or asks for an error, which cannot be returned here.
#[inline(always)]
pub fn numbered(name: &str, number: u64) {
    #[cfg(feature = "faults")]
    if armed::is_armed() {
        point(name);
        point(&format!("{name}:{number}"));
    }
    #[cfg(not(feature = "faults"))]
    {
        let _ = (name, number);
    }
}

/// The same where an error can be returned.
///
/// # Errors
/// If the script says so.
///
/// # Panics
/// If the script says so.
#[inline(always)]
pub fn fallible(name: &str) -> Result<(), InjectedFault> {
    #[cfg(feature = "faults")]
    return armed::reach(name);
    #[cfg(not(feature = "faults"))]
    {
        let _ = name;
        Ok(())
    }
}

#[cfg(feature = "faults")]
pub use armed::{Armed, FaultScriptError, arm, arm_from_env, hits, release, release_all, wait_until_paused};

#[cfg(feature = "faults")]
mod armed {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
    use std::time::Duration;

    use super::InjectedFault;
    use crate::clock::{Clock, SystemClock};

    /// A script that cannot be read.
    #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
    #[error("fault script: expected point=[N*]panic|pause|abort|error|delay(ms), got {entry:?}")]
    pub struct FaultScriptError {
        /// The entry at fault.
        pub entry: String,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Action {
        Panic,
        Pause,
        Abort,
        Error,
        Delay(Duration),
    }

    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(super) struct Rule {
        pub(super) point: String,
        /// Which hit, from 1; `None` is every hit.
        pub(super) hit: Option<u64>,
        pub(super) action: Action,
    }

    struct Script {
        key: u64,
        rules: Vec<Rule>,
        hits: HashMap<String, u64>,
    }

    #[derive(Default)]
    struct Table {
        next_key: u64,
        scripts: Vec<Script>,
        /// Threads that stand at a point now.
        paused: HashMap<String, usize>,
        /// How often a point was released.
        released: HashMap<String, u64>,
    }

    static SCRIPTS: AtomicUsize = AtomicUsize::new(0);
    static TABLE: Mutex<Option<Table>> = Mutex::new(None);
    static CHANGED: Condvar = Condvar::new();

    fn with_table<R>(read: impl FnOnce(&mut Table) -> R) -> R {
        read(lock().get_or_insert_with(Table::default))
    }

    fn lock() -> MutexGuard<'static, Option<Table>> {
        TABLE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A script in force; dropping it disarms it and releases who stands at its points.
    #[derive(Debug)]
    #[must_use = "dropping it disarms the script"]
    pub struct Armed {
        key: u64,
    }

    /// Puts a script in force for the whole process, beside those that are.
    ///
    /// # Errors
    /// If the script cannot be read; nothing is armed then.
    pub fn arm(script: &str) -> Result<Armed, FaultScriptError> {
        let rules = parse(script)?;
        let key = with_table(|table| {
            table.next_key += 1;
            table.scripts.push(Script { key: table.next_key, rules, hits: HashMap::new() });
            table.next_key
        });
        SCRIPTS.fetch_add(1, Ordering::AcqRel);
        Ok(Armed { key })
    }

    /// Puts the script of the environment variable `RESTYLE_FAULTS` in force for as long as the process lives; says
    /// whether there was one.
    ///
    /// # Errors
    /// If the script cannot be read.
    pub fn arm_from_env() -> Result<bool, FaultScriptError> {
        let Some(script) = std::env::var_os("RESTYLE_FAULTS") else { return Ok(false) };
        std::mem::forget(arm(&script.to_string_lossy())?);
        Ok(true)
    }

    impl Drop for Armed {
        fn drop(&mut self) {
            SCRIPTS.fetch_sub(1, Ordering::AcqRel);
            let ended = with_table(|table| {
                let position = table.scripts.iter().position(|script| script.key == self.key);
                position.map(|position| table.scripts.swap_remove(position))
            });
            for rule in ended.into_iter().flat_map(|script| script.rules) {
                release(&rule.point);
            }
        }
    }

    /// How often a point was reached since the oldest script in force that names it was armed.
    pub fn hits(point: &str) -> u64 {
        with_table(|table| table.scripts.iter().filter_map(|script| script.hits.get(point)).max().copied().unwrap_or(0))
    }

    /// Lets the threads go on that stand at a point.
    pub fn release(point: &str) {
        with_table(|table| *table.released.entry(point.to_owned()).or_default() += 1);
        CHANGED.notify_all();
    }

    /// Lets every paused thread go on.
    pub fn release_all() {
        let points: Vec<String> = with_table(|table| table.paused.keys().cloned().collect());
        for point in points {
            release(&point);
        }
    }

    /// Blocks until a thread stands at a point, at most for `timeout` of real time; true if one does.
    pub fn wait_until_paused(point: &str, timeout: Duration) -> bool {
        let stands = |table: &Option<Table>| {
            table.as_ref().and_then(|table| table.paused.get(point)).is_some_and(|threads| *threads > 0)
        };
        let waited = CHANGED.wait_timeout_while(lock(), timeout, |table| !stands(table));
        stands(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Whether any script is in force.
    pub(super) fn is_armed() -> bool {
        SCRIPTS.load(Ordering::Acquire) > 0
    }

    pub(super) fn reach(point: &str) -> Result<(), InjectedFault> {
        if !is_armed() {
            return Ok(());
        }
        let action = with_table(|table| table.action(point));
        if let Some(action) = action {
            tracing::error!("fault injected at {point}: {action:?}");
        }
        match action {
            None => {}
            Some(Action::Panic) => panic!("fault injected at {point}"),
            Some(Action::Pause) => pause(point),
            Some(Action::Abort) => std::process::abort(),
            Some(Action::Error) => return Err(InjectedFault { point: point.to_owned() }),
            Some(Action::Delay(time)) => SystemClock::new().sleep(time),
        }
        Ok(())
    }

    fn pause(point: &str) {
        let mut guard = lock();
        let table = guard.get_or_insert_with(Table::default);
        let before = table.released.get(point).copied();
        *table.paused.entry(point.to_owned()).or_default() += 1;
        CHANGED.notify_all();
        let still = |table: &mut Option<Table>| {
            table.as_ref().is_some_and(|table| table.released.get(point).copied() == before)
        };
        let mut guard = CHANGED.wait_while(guard, still).unwrap_or_else(PoisonError::into_inner);
        if let Some(threads) = guard.as_mut().and_then(|table| table.paused.get_mut(point)) {
            *threads -= 1;
        }
        CHANGED.notify_all();
    }

    impl Table {
        /// Counts a hit in every script that names the point; the first rule that applies decides.
        fn action(&mut self, point: &str) -> Option<Action> {
            let mut action = None;
            for script in &mut self.scripts {
                if !script.rules.iter().any(|rule| rule.point == point) {
                    continue;
                }
                let hits = script.hits.entry(point.to_owned()).or_default();
                *hits += 1;
                let hit = *hits;
                let rule = script.rules.iter().find(|rule| rule.point == point && rule.hit.is_none_or(|at| at == hit));
                action = action.or(rule.map(|rule| rule.action));
            }
            action
        }
    }

    pub(super) fn parse(script: &str) -> Result<Vec<Rule>, FaultScriptError> {
        let entries = script.split(';').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(|entry| parse_entry(entry).ok_or_else(|| FaultScriptError { entry: entry.to_owned() })).collect()
    }

    fn parse_entry(entry: &str) -> Option<Rule> {
        let (point, what) = entry.split_once('=')?;
        let (hit, action) = match what.split_once('*') {
            Some((hit, action)) => (Some(hit.trim().parse().ok().filter(|hit| *hit > 0)?), action),
            None => (None, what),
        };
        let action = match action.trim() {
            "panic" => Action::Panic,
            "pause" => Action::Pause,
            "abort" => Action::Abort,
            "error" => Action::Error,
            delay => {
                let millis = delay.strip_prefix("delay(")?.strip_suffix(')')?;
                Action::Delay(Duration::from_millis(millis.trim().parse().ok()?))
            }
        };
        let point = point.trim();
        (!point.is_empty()).then(|| Rule { point: point.to_owned(), hit, action })
    }
}

#[cfg(all(test, feature = "faults"))]
mod tests {
    use std::panic::catch_unwind;
    use std::time::Duration;

    use super::armed::{Action, parse};
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn scripts_are_read() {
        let rules = parse(" score = 1*panic; encode=2*pause ;a:b=delay( 50 );").unwrap();
        let rules: Vec<_> = rules.iter().map(|rule| (rule.point.as_str(), rule.hit, rule.action)).collect();
        assert_eq!(
            rules,
            [
                ("score", Some(1), Action::Panic),
                ("encode", Some(2), Action::Pause),
                ("a:b", None, Action::Delay(Duration::from_millis(50))),
            ]
        );
        for script in ["score", "score=", "=panic", "score=0*panic", "score=x*panic", "score=delay", "a=panic;b=burn"] {
            assert!(parse(script).is_err(), "{script:?}");
        }
    }

    #[test]
    fn a_point_acts_at_its_hit_and_no_other() {
        let _armed = arm("test:third=3*error").unwrap();
        let hits: Vec<bool> = (0..5).map(|_| fallible("test:third").is_err()).collect();
        assert_eq!(hits, [false, false, true, false, false]);
        assert_eq!(super::hits("test:third"), 5);
        assert!(fallible("test:other").is_ok());
    }

    #[test]
    fn a_numbered_point_is_reached_with_and_without_its_number() {
        let _armed = arm("test:item=delay(0);test:item:7=panic").unwrap();
        numbered("test:item", 6);
        assert!(catch_unwind(|| numbered("test:item", 7)).is_err());
        assert_eq!(hits("test:item"), 2);
    }

    #[test]
    fn disarming_ends_it() {
        let armed = arm("test:gone=panic").unwrap();
        assert!(catch_unwind(|| point("test:gone")).is_err());
        drop(armed);
        point("test:gone");
        assert_eq!(hits("test:gone"), 0);
    }

    #[test]
    fn an_error_where_none_can_be_returned_is_loud() {
        let _armed = arm("test:loud=error").unwrap();
        assert!(catch_unwind(|| point("test:loud")).is_err());
    }

    #[test]
    fn a_paused_thread_stands_until_released() {
        let _armed = arm("test:pause=1*pause").unwrap();
        let thread = std::thread::spawn(|| point("test:pause"));
        assert!(wait_until_paused("test:pause", LONG));
        assert!(!thread.is_finished());
        release("test:pause");
        thread.join().unwrap();
        assert!(!wait_until_paused("test:pause", Duration::ZERO));
    }

    #[test]
    fn disarming_releases() {
        let armed = arm("test:left=pause").unwrap();
        let thread = std::thread::spawn(|| point("test:left"));
        assert!(wait_until_paused("test:left", LONG));
        drop(armed);
        thread.join().unwrap();
    }
}
