//! The record, as far as this agent knows it, and the one place where it is changed.
//!
//! Decides when the record is read afresh. Only a fresh read is believed: a watch event says no more than "read
//! again", because versions are opaque and a watch may lag behind an answer that we already had (§2). Must never run
//! two swaps at once, never call a swap won that a read has not shown, and never take an error for a change.

use std::sync::Arc;
use std::time::Duration;

use ha::{FenceToken, Instant, Record, RecordView, Swap};
use kubernetes::record::{RecordRead, RecordStore, Snapshot, Swapped};
use tokio::sync::{Mutex, Notify, watch};

use crate::clock;

/// Pause between attempts to settle a swap of unknown outcome.
const SETTLE_PAUSE: Duration = Duration::from_millis(300);
/// How often a swap of unknown outcome is tried again before a new decision is asked for.
const SETTLE_TRIES: usize = 4;
/// Pause after a read that failed.
const RETRY: Duration = Duration::from_millis(500);

/// Reads and changes the record.
#[derive(Clone)]
pub(crate) struct Keeper(Arc<Inner>);

struct Inner {
    store: RecordStore,
    state: watch::Sender<State>,
    /// Reads and swaps one after the other, so that what is stored last is what was read last.
    turn: Mutex<()>,
    again: Notify,
    interval: watch::Sender<Duration>,
}

/// The newest snapshot with what the protocol wants to know of it.
#[derive(Debug, Clone)]
pub(crate) struct State {
    view: RecordView,
    snapshot: Option<Snapshot>,
}

impl State {
    /// The form that decisions are made on.
    pub(crate) fn view(&self) -> &RecordView {
        &self.view
    }

    /// The content, when known.
    pub(crate) fn record(&self) -> Option<&Record> {
        match &self.view {
            RecordView::Known { record, .. } => Some(record),
            _ => None,
        }
    }
}

/// What became of a swap.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It took place; the proof, and what the record says now. To be taken over together ([`Keeper::adopt`]): a
    /// decision that saw its own win without the proof would think that it came from an earlier life.
    Won {
        /// The proof.
        token: FenceToken,
        /// The record as it was written.
        read: Box<RecordRead>,
        /// Before the request was sent.
        asked_at: Instant,
    },
    /// It did not, or nobody knows; the next view says what stands there now.
    NotWon {
        /// Why.
        why: String,
    },
}

impl Keeper {
    /// A keeper that knows nothing yet.
    pub(crate) fn new(store: RecordStore) -> Self {
        let why = "not read yet".to_owned();
        let (state, _) = watch::channel(State { view: RecordView::Unknown { why }, snapshot: None });
        let (interval, _) = watch::channel(RETRY);
        Self(Arc::new(Inner { store, state, turn: Mutex::new(()), again: Notify::new(), interval }))
    }

    /// What is known.
    pub(crate) fn get(&self) -> State {
        self.0.state.borrow().clone()
    }

    /// Reports every change of what is known.
    pub(crate) fn subscribe(&self) -> watch::Receiver<State> {
        self.0.state.subscribe()
    }

    /// How old what is known may get before it is read again.
    pub(crate) fn read_every(&self, interval: Duration) {
        self.0.interval.send_if_modified(|old| std::mem::replace(old, interval) != interval);
    }

    /// Asks for a fresh read soon: a watch event, or a peer that has seen a newer epoch.
    pub(crate) fn look(&self) {
        self.0.again.notify_one();
    }

    /// Reads for ever, at the wanted interval and whenever asked to.
    pub(crate) async fn run(self) {
        let mut interval = self.0.interval.subscribe();
        loop {
            let known = self.refresh().await.is_some();
            let pause = if known { *interval.borrow_and_update() } else { RETRY };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.0.again.notified() => {}
                _ = interval.changed() => {}
            }
        }
    }

    /// A fresh read. None when it told nothing new about the record (an error, none there, tampered with).
    pub(crate) async fn refresh(&self) -> Option<Record> {
        let _turn = self.0.turn.lock().await;
        let asked_at = clock::now();
        let read = self.0.store.read().await;
        let record = match &read {
            RecordRead::Known(snapshot) => Some(snapshot.record().clone()),
            RecordRead::Unknown { why, .. } => {
                tracing::debug!(why, "the record could not be read");
                None
            }
            _ => None,
        };
        self.observe(read, asked_at);
        record
    }

    /// Tries this compare-and-swap and finds out what became of it.
    pub(crate) async fn swap(&self, swap: Swap) -> Outcome {
        let _turn = self.0.turn.lock().await;
        let Some(snapshot) = self.get().snapshot.filter(|snapshot| *snapshot.version() == swap.expect) else {
            return Outcome::NotWon { why: "the record has changed since the decision".to_owned() };
        };
        let mut why = String::new();
        for attempt in 0..SETTLE_TRIES {
            if attempt > 0 {
                tokio::time::sleep(SETTLE_PAUSE).await;
            }
            let asked_at = clock::now();
            // Trying again after an unknown outcome is the same swap on the same version: it cannot happen twice,
            // and when the first try arrived after all, the store finds the very content and calls it won.
            match self.0.store.swap(&snapshot, &swap.record).await {
                Swapped::Won(now) => {
                    let version = now.version().clone();
                    let read = Box::new(RecordRead::Known(now));
                    return Outcome::Won { token: swap.won(version), read, asked_at };
                }
                Swapped::Lost(read) => {
                    self.observe(read, asked_at);
                    return Outcome::NotWon { why: "somebody else was faster".to_owned() };
                }
                Swapped::Refused { why } => return Outcome::NotWon { why },
                Swapped::Unknown { why: reason, .. } => why = reason,
            }
        }
        self.look();
        Outcome::NotWon { why: format!("outcome unknown: {why}") }
    }

    /// Takes over what a won swap brought.
    pub(crate) fn adopt(&self, read: RecordRead, asked_at: Instant) {
        self.observe(read, asked_at);
    }

    /// Renews the Lease without changing the record: the sign of life for people every 10 s in quorum mode.
    pub(crate) async fn renew(&self) {
        let Ok(_turn) = self.0.turn.try_lock() else { return };
        let Some(snapshot) = self.get().snapshot else { return };
        let asked_at = clock::now();
        match self.0.store.renew(&snapshot).await {
            Swapped::Won(now) => self.observe(RecordRead::Known(now), asked_at),
            Swapped::Lost(read) => self.observe(read, asked_at),
            Swapped::Refused { why } | Swapped::Unknown { why, .. } => {
                tracing::debug!(why, "the record was not renewed");
                self.look();
            }
        }
    }

    /// Takes over what a read told. An error leaves the last snapshot standing, unconfirmed; only an answer changes it.
    fn observe(&self, read: RecordRead, asked_at: Instant) {
        self.0.state.send_if_modified(|state| {
            let next = match read {
                RecordRead::Known(snapshot) => {
                    let changed_at = match &state.view {
                        RecordView::Known { version, changed_at, .. } if version == snapshot.version() => {
                            *changed_at
                        }
                        _ => asked_at,
                    };
                    let known = RecordRead::Known(snapshot.clone());
                    State { view: known.view(asked_at, changed_at), snapshot: Some(snapshot) }
                }
                RecordRead::Unknown { .. } if state.snapshot.is_some() => return false,
                other => State { view: other.view(asked_at, asked_at), snapshot: None },
            };
            let differs = next.view != state.view;
            *state = next;
            differs
        });
    }
}
