//! The locks this crate builds on, so that a model checker can stand in for them.
//!
//! Outside tests these are thin wrappers of the standard ones that ignore poisoning: no code of a caller runs under a
//! lock of ours, so a panic cannot leave half a change behind. In tests each lock is either a standard one or, when made
//! inside [`model`], one of shuttle's, which explores the orders in which threads may run.

#[cfg(not(test))]
pub(crate) use plain::{Condvar, Mutex};
#[cfg(test)]
pub(crate) use switched::{Condvar, Mutex, model};

#[cfg_attr(test, allow(dead_code))]
mod plain {
    use std::sync::PoisonError;

    pub(crate) use std::sync::MutexGuard;

    /// A mutex that knows no poisoning.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Mutex<T> {
            Mutex(std::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// A condition variable for [`Mutex`].
    #[derive(Debug, Default)]
    pub(crate) struct Condvar(std::sync::Condvar);

    impl Condvar {
        pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}

#[cfg(test)]
mod switched {
    use std::cell::Cell;
    use std::ops::{Deref, DerefMut};
    use std::sync::{Arc, PoisonError};

    use super::plain;

    thread_local! {
        static MODELLED: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs `body` under shuttle twice `schedules` times, each with another order of its threads: first with any thread at
    /// every step, then with a few changes of priority, which finds what needs one thread to run long at a bad moment.
    ///
    /// Threads inside must be `shuttle::thread`s; all of them live on the calling OS thread.
    pub(crate) fn model(schedules: usize, body: impl Fn() + Send + Sync + 'static) {
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                MODELLED.set(false);
            }
        }
        MODELLED.set(true);
        let _leave = Leave;
        let body = Arc::new(body);
        shuttle::check_random(
            {
                let body = body.clone();
                move || body()
            },
            schedules,
        );
        shuttle::check_pct(move || body(), schedules, 3);
    }

    /// A mutex of either kind.
    #[derive(Debug)]
    pub(crate) enum Mutex<T> {
        Plain(plain::Mutex<T>),
        Model(shuttle::sync::Mutex<T>),
    }

    /// Its guard.
    pub(crate) enum MutexGuard<'a, T> {
        Plain(plain::MutexGuard<'a, T>),
        Model(shuttle::sync::MutexGuard<'a, T>),
    }

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Mutex<T> {
            if MODELLED.get() {
                Mutex::Model(shuttle::sync::Mutex::new(value))
            } else {
                Mutex::Plain(plain::Mutex::new(value))
            }
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            match self {
                Mutex::Plain(mutex) => MutexGuard::Plain(mutex.lock()),
                Mutex::Model(mutex) => MutexGuard::Model(mutex.lock().unwrap_or_else(PoisonError::into_inner)),
            }
        }
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Mutex<T> {
            Mutex::new(T::default())
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;
        fn deref(&self) -> &T {
            match self {
                MutexGuard::Plain(guard) => guard,
                MutexGuard::Model(guard) => guard,
            }
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            match self {
                MutexGuard::Plain(guard) => guard,
                MutexGuard::Model(guard) => guard,
            }
        }
    }

    /// A condition variable of either kind.
    #[derive(Debug)]
    pub(crate) enum Condvar {
        Plain(plain::Condvar),
        Model(shuttle::sync::Condvar),
    }

    impl Default for Condvar {
        fn default() -> Condvar {
            if MODELLED.get() {
                Condvar::Model(shuttle::sync::Condvar::new())
            } else {
                Condvar::Plain(plain::Condvar::default())
            }
        }
    }

    impl Condvar {
        pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            match (self, guard) {
                (Condvar::Plain(condvar), MutexGuard::Plain(guard)) => MutexGuard::Plain(condvar.wait(guard)),
                (Condvar::Model(condvar), MutexGuard::Model(guard)) => {
                    MutexGuard::Model(condvar.wait(guard).unwrap_or_else(PoisonError::into_inner))
                }
                _ => panic!("a lock made inside a model met one made outside"),
            }
        }

        pub(crate) fn notify_one(&self) {
            match self {
                Condvar::Plain(condvar) => condvar.notify_one(),
                Condvar::Model(condvar) => condvar.notify_one(),
            }
        }

        pub(crate) fn notify_all(&self) {
            match self {
                Condvar::Plain(condvar) => condvar.notify_all(),
                Condvar::Model(condvar) => condvar.notify_all(),
            }
        }
    }
}
