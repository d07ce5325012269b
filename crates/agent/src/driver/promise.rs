//! The durable promise: one small file beside the data directory (§2, I3).
//!
//! Decides when a change of the promise counts: after the file and its directory were fsynced, never before. It must
//! never lower a seal, never replace a promise that exists but cannot be read (that would let a sealed member
//! acknowledge again), and never survive the loss of the volume: a new volume gets a new incarnation.
//! Proved by `a_promise_outlives_its_process`, `a_torn_promise_is_an_error_and_never_a_new_member` and
//! `a_seal_never_sinks`.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use ha::{Incarnation, Promise};
use postgres::Layout;
use postgres::promise::DurableFile;
use tokio::sync::watch;

/// The promise on disk and its copy in memory; the copy changes only after the disk did.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    file: Arc<DurableFile<Promise>>,
    writing: Arc<Mutex<()>>,
    current: watch::Sender<Promise>,
}

impl Store {
    /// Reads the promise of this volume, or makes one with a random incarnation when the volume has neither a
    /// promise nor a data directory.
    ///
    /// Fails when the file exists and is not a promise, when data lies there without a promise, or when the
    /// promise was given for another cluster: none of these may be answered by a new identity (I3).
    pub(crate) async fn open(layout: &Layout, cluster_uid: &str) -> anyhow::Result<Self> {
        let (layout, uid) = (layout.clone(), cluster_uid.to_owned());
        let file = DurableFile::new(layout.promise());
        let (file, promise) = tokio::task::spawn_blocking(move || {
            let promise = load_or_create(&file, &layout, &uid)?;
            anyhow::Ok((file, promise))
        })
        .await??;
        let (current, _) = watch::channel(promise);
        Ok(Self { file: Arc::new(file), writing: Arc::default(), current })
    }

    /// The promise as it is on disk.
    pub(crate) fn get(&self) -> Promise {
        self.current.borrow().clone()
    }

    /// Reports every durable change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Promise> {
        self.current.subscribe()
    }

    /// Changes the promise durably. Returns only after the change would survive a power cut, and never when it does
    /// not; a change that changes nothing costs nothing.
    ///
    /// The whole change runs on a thread of its own, so that an act which is cancelled in the middle cannot leave
    /// the disk ahead of the copy in memory.
    pub(crate) async fn update(
        &self,
        change: impl FnOnce(&mut Promise) + Send + 'static,
    ) -> anyhow::Result<Promise> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.change(change)).await?
    }

    fn change(&self, change: impl FnOnce(&mut Promise)) -> anyhow::Result<Promise> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.get();
        let mut after = before.clone();
        change(&mut after);
        if after == before {
            return Ok(before);
        }
        ensure!(
            after.sealed_below >= before.sealed_below,
            "a seal below {} cannot be taken back",
            before.sealed_below
        );
        ensure!(after.incarnation == before.incarnation, "an incarnation never changes");
        self.file.store(&after)?;
        self.current.send_replace(after.clone());
        Ok(after)
    }
}

fn load_or_create(
    file: &DurableFile<Promise>,
    layout: &Layout,
    cluster_uid: &str,
) -> anyhow::Result<Promise> {
    layout.prepare().context("preparing the volume")?;
    if let Some(promise) = file.load()? {
        // A cluster that is made anew over kept volumes has another UID; whether it may have this data is decided by
        // the record that it adopted (K15), not here.
        if promise.cluster_uid != cluster_uid {
            tracing::warn!(
                promised = promise.cluster_uid,
                cluster_uid,
                "this volume was made for another resource"
            );
        }
        return Ok(promise);
    }
    ensure!(
        !layout.has_data(),
        "{} holds data but there is no promise {}; only a human may decide what this copy is worth",
        layout.data().display(),
        file.path().display(),
    );
    let promise = Promise::new(Incarnation(rand::random()), cluster_uid);
    file.store(&promise)?;
    tracing::info!(incarnation = %promise.incarnation, "this volume is new");
    Ok(promise)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ha::Epoch;

    use super::*;

    async fn store(volume: &Path) -> anyhow::Result<Store> {
        Store::open(&Layout::new(volume), "uid").await
    }

    #[tokio::test]
    async fn a_promise_outlives_its_process() {
        let directory = tempfile::tempdir().unwrap();
        let first = store(directory.path()).await.unwrap();
        let written = first.update(|promise| promise.sealed_below = Epoch(7)).await.unwrap();
        assert_eq!(store(directory.path()).await.unwrap().get(), written);
    }

    #[tokio::test]
    async fn a_torn_promise_is_an_error_and_never_a_new_member() {
        let directory = tempfile::tempdir().unwrap();
        let path = Layout::new(directory.path()).promise();
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(path, "{").unwrap();
        assert!(store(directory.path()).await.is_err());
    }

    #[tokio::test]
    async fn data_without_a_promise_is_an_error_and_never_a_new_member() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("pgdata")).unwrap();
        std::fs::write(directory.path().join("pgdata/PG_VERSION"), "17").unwrap();
        assert!(store(directory.path()).await.is_err());
    }

    #[tokio::test]
    async fn a_seal_never_sinks() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path()).await.unwrap();
        store.update(|promise| promise.sealed_below = Epoch(7)).await.unwrap();
        assert!(store.update(|promise| promise.sealed_below = Epoch(6)).await.is_err());
        assert_eq!(store.get().sealed_below, Epoch(7));
    }
}
