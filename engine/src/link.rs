//! A bounded hop between two threads that counts what passes and how long either side stands.
//!
//! Produced by any number of senders, consumed by one receiver, bounded by its capacity; a full link blocks `send`. It
//! closes when all senders or the receiver are gone. A link that carries items with credits is given the credit count as
//! its capacity, so that it never blocks: back-pressure lives in credits alone (L4).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, select};

use crate::cancel::CancelToken;
use crate::clock::{Clock, SystemClock, micros};

/// Makes a link for at most `capacity` waiting messages; `name` is for metrics.
///
/// # Panics
/// If `capacity` is zero.
pub fn link<T>(name: impl Into<String>, capacity: usize) -> (LinkSender<T>, LinkReceiver<T>) {
    link_with_clock(name, capacity, SystemClock::shared())
}

/// The same, measuring stall time with `clock`.
///
/// # Panics
/// If `capacity` is zero.
pub fn link_with_clock<T>(
    name: impl Into<String>,
    capacity: usize,
    clock: Arc<dyn Clock>,
) -> (LinkSender<T>, LinkReceiver<T>) {
    assert!(capacity > 0, "a link that can hold no message");
    let (sender, receiver) = crossbeam_channel::bounded(capacity);
    let counts = Arc::new(Counts::new(name.into(), capacity, clock));
    (LinkSender { channel: sender, counts: counts.clone() }, LinkReceiver { channel: receiver, counts })
}

/// What passed a link so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStats {
    /// The link's name.
    pub name: String,
    /// Most messages that can wait in it.
    pub capacity: usize,
    /// Messages sent.
    pub sent: u64,
    /// Messages received.
    pub received: u64,
    /// Time senders stood before a full link, summed.
    pub send_stall_micros: u64,
    /// Time the receiver stood before an empty link.
    pub recv_stall_micros: u64,
}

impl LinkStats {
    /// Messages that wait in it; the two counters are read one after the other, so this is about now.
    pub fn fill(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }
}

struct Counts {
    name: String,
    capacity: usize,
    clock: Arc<dyn Clock>,
    sent: AtomicU64,
    received: AtomicU64,
    send_stall_micros: AtomicU64,
    recv_stall_micros: AtomicU64,
}

impl Counts {
    fn new(name: String, capacity: usize, clock: Arc<dyn Clock>) -> Counts {
        Counts {
            name,
            capacity,
            clock,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            send_stall_micros: AtomicU64::new(0),
            recv_stall_micros: AtomicU64::new(0),
        }
    }

    fn stats(&self) -> LinkStats {
        // `received` first: then fill never seems negative.
        let received = self.received.load(Ordering::Acquire);
        LinkStats {
            name: self.name.clone(),
            capacity: self.capacity,
            sent: self.sent.load(Ordering::Acquire),
            received,
            send_stall_micros: self.send_stall_micros.load(Ordering::Relaxed),
            recv_stall_micros: self.recv_stall_micros.load(Ordering::Relaxed),
        }
    }

    fn stalled(&self, stall_micros: &AtomicU64, began: Duration) {
        let stalled = self.clock.now().saturating_sub(began);
        stall_micros.fetch_add(micros(stalled), Ordering::Relaxed);
    }
}

/// Why a message was not sent; holds the message.
#[derive(thiserror::Error)]
pub enum SendError<T> {
    /// The receiver is gone.
    #[error("link closed by its receiver")]
    Closed(T),
    /// The token was cancelled while the link was full.
    #[error("cancelled before a full link")]
    Cancelled(T),
    /// The link is full; only from [`LinkSender::try_send`].
    #[error("link full")]
    Full(T),
}

impl<T> SendError<T> {
    /// The message that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            SendError::Closed(message) | SendError::Cancelled(message) | SendError::Full(message) => message,
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Closed(_) => "Closed(..)",
            SendError::Cancelled(_) => "Cancelled(..)",
            SendError::Full(_) => "Full(..)",
        })
    }
}

/// Why no message was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// Every sender is gone and the link is empty.
    #[error("link closed by its senders")]
    Closed,
    /// The token was cancelled.
    #[error("cancelled before an empty link")]
    Cancelled,
    /// Nothing came in time; from [`LinkReceiver::recv_timeout`] and [`LinkReceiver::try_recv`].
    #[error("nothing came in time")]
    Empty,
}

/// The sending end; clones share the link.
pub struct LinkSender<T> {
    channel: Sender<T>,
    counts: Arc<Counts>,
}

impl<T> LinkSender<T> {
    /// Sends a message; blocks while the link is full.
    ///
    /// # Errors
    /// The message comes back if the receiver is gone or `cancel` is cancelled before there was room. Room is taken even
    /// when cancelled: what can be finished is.
    pub fn send(&self, message: T, cancel: &CancelToken) -> Result<(), SendError<T>> {
        let message = match self.try_send(message) {
            Err(SendError::Full(message)) => message,
            done => return done,
        };
        let began = self.counts.clock.now();
        // A macro arm evaluates its message only once it is chosen, so the other arm still owns it.
        let outcome = select! {
            send(self.channel, message) -> sent => sent.map_err(|refused| SendError::Closed(refused.into_inner())),
            recv(cancel.ended()) -> _ => Err(SendError::Cancelled(message)),
        };
        self.counts.stalled(&self.counts.send_stall_micros, began);
        if outcome.is_ok() {
            self.counts.sent.fetch_add(1, Ordering::AcqRel);
        }
        outcome
    }

    /// Sends a message if there is room; never blocks.
    ///
    /// # Errors
    /// The message comes back if the link is full or closed.
    pub fn try_send(&self, message: T) -> Result<(), SendError<T>> {
        match self.channel.try_send(message) {
            Ok(()) => {
                self.counts.sent.fetch_add(1, Ordering::AcqRel);
                Ok(())
            }
            Err(TrySendError::Full(message)) => Err(SendError::Full(message)),
            Err(TrySendError::Disconnected(message)) => Err(SendError::Closed(message)),
        }
    }

    /// What passed so far.
    pub fn stats(&self) -> LinkStats {
        self.counts.stats()
    }

    /// A view of the counters that keeps neither end open.
    pub fn probe(&self) -> LinkProbe {
        LinkProbe { counts: self.counts.clone() }
    }
}

impl<T> Clone for LinkSender<T> {
    fn clone(&self) -> LinkSender<T> {
        LinkSender { channel: self.channel.clone(), counts: self.counts.clone() }
    }
}

impl<T> fmt::Debug for LinkSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LinkSender").field(&self.stats()).finish()
    }
}

/// The receiving end.
pub struct LinkReceiver<T> {
    channel: Receiver<T>,
    counts: Arc<Counts>,
}

impl<T> LinkReceiver<T> {
    /// Receives the next message; blocks while there is none.
    ///
    /// # Errors
    /// When every sender is gone and the link is empty, or `cancel` is cancelled. Cancelled wins: what still waits in the
    /// link goes when the receiver does.
    pub fn recv(&self, cancel: &CancelToken) -> Result<T, RecvError> {
        if cancel.is_cancelled() {
            return Err(RecvError::Cancelled);
        }
        match self.try_recv() {
            Err(RecvError::Empty) => {}
            done => return done,
        }
        let began = self.counts.clock.now();
        let outcome = select! {
            recv(self.channel) -> message => message.map_err(|_| RecvError::Closed),
            recv(cancel.ended()) -> _ => Err(RecvError::Cancelled),
        };
        self.counts.stalled(&self.counts.recv_stall_micros, began);
        self.counted(outcome)
    }

    /// Receives the next message, waiting at most `timeout` of real time.
    ///
    /// # Errors
    /// When nothing came in time, or every sender is gone and the link is empty.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvError> {
        match self.try_recv() {
            Err(RecvError::Empty) => {}
            done => return done,
        }
        let began = self.counts.clock.now();
        let outcome = self.channel.recv_timeout(timeout).map_err(|error| match error {
            RecvTimeoutError::Timeout => RecvError::Empty,
            RecvTimeoutError::Disconnected => RecvError::Closed,
        });
        self.counts.stalled(&self.counts.recv_stall_micros, began);
        self.counted(outcome)
    }

    /// Receives a message if one waits; never blocks.
    ///
    /// # Errors
    /// When none waits, or every sender is gone and the link is empty.
    pub fn try_recv(&self) -> Result<T, RecvError> {
        let outcome = self.channel.try_recv().map_err(|error| match error {
            TryRecvError::Empty => RecvError::Empty,
            TryRecvError::Disconnected => RecvError::Closed,
        });
        self.counted(outcome)
    }

    /// What passed so far.
    pub fn stats(&self) -> LinkStats {
        self.counts.stats()
    }

    /// A view of the counters that keeps neither end open.
    pub fn probe(&self) -> LinkProbe {
        LinkProbe { counts: self.counts.clone() }
    }

    fn counted(&self, outcome: Result<T, RecvError>) -> Result<T, RecvError> {
        if outcome.is_ok() {
            self.counts.received.fetch_add(1, Ordering::AcqRel);
        }
        outcome
    }
}

impl<T> Drop for LinkReceiver<T> {
    /// Drops what still waits in the link: the channel itself would keep it until the last sender goes, and a sender may
    /// be waiting for the very credits that lie in there. What is sent at this very moment may stay: a message a sender.
    fn drop(&mut self) {
        while self.channel.try_recv().is_ok() {}
    }
}

impl<T> fmt::Debug for LinkReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LinkReceiver").field(&self.stats()).finish()
    }
}

/// A view of a link's counters.
#[derive(Clone)]
pub struct LinkProbe {
    counts: Arc<Counts>,
}

impl LinkProbe {
    /// What passed so far.
    pub fn stats(&self) -> LinkStats {
        self.counts.stats()
    }
}

impl fmt::Debug for LinkProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LinkProbe").field(&self.stats()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_pass_in_order_and_are_counted() {
        let (sender, receiver) = link("test", 3);
        let cancel = CancelToken::new();
        for number in 0..3 {
            sender.send(number, &cancel).unwrap();
        }
        assert!(matches!(sender.try_send(9), Err(SendError::Full(9))));
        assert_eq!(receiver.recv(&cancel), Ok(0));
        let stats = receiver.stats();
        assert_eq!((stats.sent, stats.received, stats.fill(), stats.capacity), (3, 1, 2, 3));
        drop(sender);
        assert_eq!((receiver.recv(&cancel), receiver.recv(&cancel)), (Ok(1), Ok(2)));
        assert_eq!(receiver.recv(&cancel), Err(RecvError::Closed));
    }

    #[test]
    fn a_message_for_nobody_comes_back() {
        let (sender, receiver) = link("test", 1);
        drop(receiver);
        assert_eq!(sender.send("text", &CancelToken::new()).unwrap_err().into_inner(), "text");
    }

    #[test]
    fn what_waits_goes_with_the_receiver_while_a_sender_lives() {
        let (sender, receiver) = link("test", 2);
        let credit = Arc::new(());
        sender.try_send(Arc::clone(&credit)).unwrap();
        drop(receiver);
        assert_eq!(Arc::strong_count(&credit), 1);
        assert!(matches!(sender.try_send(credit), Err(SendError::Closed(_))));
    }

    #[test]
    fn cancelling_ends_both_waits() {
        let (sender, receiver) = link("test", 1);
        let cancel = CancelToken::new();
        sender.try_send(1).unwrap();
        let sending = std::thread::spawn({
            let cancel = cancel.clone();
            move || sender.send(2, &cancel).map_err(SendError::into_inner)
        });
        cancel.cancel();
        assert_eq!(sending.join().unwrap(), Err(2));
        assert_eq!(receiver.recv(&cancel), Err(RecvError::Cancelled));
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(RecvError::Closed));
    }

    #[test]
    fn a_blocked_receiver_gets_what_comes() {
        let (sender, receiver) = link("test", 1);
        let receiving = std::thread::spawn(move || {
            let cancel = CancelToken::new();
            std::iter::from_fn(|| receiver.recv(&cancel).ok()).collect::<Vec<u32>>()
        });
        let cancel = CancelToken::new();
        for number in 0..100 {
            sender.send(number, &cancel).unwrap();
        }
        let probe = sender.probe();
        drop(sender);
        assert_eq!(receiving.join().unwrap(), (0..100).collect::<Vec<_>>());
        assert_eq!(probe.stats().fill(), 0);
    }
}
