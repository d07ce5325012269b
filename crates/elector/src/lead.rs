//! The guard: whether one still leads, and until when.

use std::sync::Arc;

use ha::Instant;
use kubernetes::{
    clock::boottime,
    leader_election::{Leadership, View},
};
use tokio::sync::watch;

/// Work under a term. While one lives, the Lease is not released before its deadline.
#[derive(Debug)]
struct Work(Arc<watch::Sender<usize>>);

impl Work {
    fn begin(works: &Arc<watch::Sender<usize>>) -> Self {
        works.send_modify(|count| *count += 1);
        Self(Arc::clone(works))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// A term that this process won. Drop it as soon as the work under it has ended: only then is the Lease released.
#[derive(Debug)]
pub struct Lead {
    view: watch::Receiver<View>,
    epoch: u64,
    _work: Work,
}

impl Lead {
    pub(crate) fn new(view: watch::Receiver<View>, epoch: u64, works: &Arc<watch::Sender<usize>>) -> Self {
        Self { view, epoch, _work: Work::begin(works) }
    }

    /// The fencing token: above that of every term before. Whatever is written for others should carry it, so that they can
    /// refuse what comes late.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Until when, by `CLOCK_BOOTTIME`, this process may act; moved on by each renewal. `None`: it may not any more.
    pub fn until(&self) -> Option<Instant> {
        match self.view.borrow().leadership {
            Leadership::Leading { until, epoch } if epoch == self.epoch && boottime() < until => Some(until),
            _ => None,
        }
    }

    /// By when work that must end has to have ended: as [`Lead::until`], also after the end was asked for.
    pub fn must_end_by(&self) -> Option<Instant> {
        match self.view.borrow().leadership {
            Leadership::Leading { until, epoch } | Leadership::Ending { until, epoch }
                if epoch == self.epoch =>
            {
                Some(until)
            }
            _ => None,
        }
    }

    /// Whether this process may act now. To be asked right before each act.
    pub fn holds(&self) -> bool {
        self.until().is_some()
    }

    /// Until this process may no longer act: its end was asked for, another one leads, or its deadline passed.
    pub async fn lost(&mut self) {
        while let Some(until) = self.until() {
            tokio::select! {
                () = tokio::time::sleep(until.since(boottime())) => {}
                changed = self.view.changed() => if changed.is_err() { return }
            }
        }
    }

    /// Until the deadline moved, or the term ended.
    pub async fn changed(&mut self) {
        let before = self.must_end_by();
        while self.must_end_by() == before {
            if self.view.changed().await.is_err() {
                return;
            }
        }
    }
}
