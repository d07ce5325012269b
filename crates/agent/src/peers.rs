//! The channel between agents: every member tells every other its whole state, over mutual TLS (§4 step 1, K10).
//!
//! It decides nothing of the protocol. It must never take the words of somebody who does not prove membership of the
//! cluster (`tests/peers.rs`), never hand out older words after newer ones of the same boot, and never let a slow
//! or dead peer hold up another: each has a connection and a task of its own, and every wait has a bound.

mod frame;
mod incoming;
mod outgoing;
mod table;
mod trust;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use ha::{Announcement, Boot, MemberName, Peer};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use table::Table;
pub use trust::TrustError;

/// Who this member is on the channel, and where others are found.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// This member; its own words are never taken from outside.
    pub member: MemberName,
    /// Its supervisor's boot.
    pub boot: Boot,
    /// The cluster, for the names in certificates.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
    /// The port on which the others listen.
    pub port: u16,
    /// PID 1's port: a member counts as refused only when this one refuses too. A crashed agent alone, which its
    /// supervisor starts again at once, is no dead member.
    pub live_port: Option<u16>,
}

/// What people should know of a member. Nothing is decided on it, so the protocol's announcement does not hold it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notes {
    /// Diverged WAL that it keeps aside (§4 step 10).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diverged_wal: Vec<api::KeptWal>,
}

/// The channel. Cheap to clone; ends with the runtime.
#[derive(Debug, Clone)]
pub struct Channel {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    local: SocketAddr,
    table: Mutex<Table>,
    /// What is said next; `sent_at` and `echoes` are filled in when it is sent.
    said: watch::Sender<Option<Arc<Announcement>>>,
    /// What is noted beside it, with the next heartbeat.
    notes: Mutex<Notes>,
    trust: watch::Sender<Option<Arc<trust::Trust>>>,
    dialled: Mutex<BTreeMap<MemberName, (IpAddr, AbortHandle)>>,
    changed: Notify,
}

impl Channel {
    /// Listens; nothing is said or heard before [`Self::set_tls`].
    ///
    /// # Errors
    /// The address is taken.
    pub async fn bind(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let local = listener.local_addr()?;
        let shared = Arc::new(Shared {
            table: Mutex::new(Table::new(options.member.clone(), options.boot)),
            options,
            local,
            said: watch::Sender::new(None),
            notes: Mutex::default(),
            trust: watch::Sender::new(None),
            dialled: Mutex::default(),
            changed: Notify::new(),
        });
        tokio::spawn(incoming::accept(listener, Arc::clone(&shared)));
        Ok(Self { shared })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local
    }

    /// Takes the cluster's bundle and this member's peer certificate and key, all PEM. New connections use them at
    /// once; standing ones stay until the bundle changes, then they are made anew.
    ///
    /// # Errors
    /// They cannot be read or do not belong together; the previous ones stay in use.
    pub fn set_tls(&self, bundle: &str, certificate: &str, key: &str) -> Result<(), TrustError> {
        let trust = trust::Trust::new(bundle, certificate, key)?;
        self.shared.trust.send_if_modified(|current| {
            if current.as_ref().is_some_and(|current| current.same(&trust)) {
                return false;
            }
            *current = Some(Arc::new(trust));
            true
        });
        Ok(())
    }

    /// Says whom to talk to, the own name left out. Connections to members that are gone or moved are closed.
    pub fn set_peers(&self, mut peers: BTreeMap<MemberName, IpAddr>) {
        peers.remove(&self.shared.options.member);
        let mut dialled = self.shared.dialled.lock().unwrap_or_else(PoisonError::into_inner);
        dialled.retain(|name, (address, task)| {
            let kept = peers.get(name) == Some(address);
            if !kept {
                task.abort();
            }
            kept
        });
        for (name, address) in &peers {
            if !dialled.contains_key(name) {
                let task = tokio::spawn(outgoing::talk_to(name.clone(), *address, Arc::clone(&self.shared)));
                dialled.insert(name.clone(), (*address, task.abort_handle()));
            }
        }
        self.shared.table().keep(&peers, crate::clock::now());
    }

    /// What to say from now on: every [`ha::announcement::HEARTBEAT`], and at once when it is news (more than a moved
    /// position). `sent_at` and `echoes` are the channel's to fill in. Saying the same again costs nothing.
    pub fn announce(&self, announcement: Announcement) {
        let announcement = table::without_sending(announcement);
        self.shared.said.send_if_modified(|said| {
            let news = said.as_deref().is_none_or(|before| table::differs(before, &announcement));
            *said = Some(Arc::new(announcement));
            news
        });
    }

    /// What people should know of this member; goes out with the next heartbeat.
    pub fn note(&self, notes: Notes) {
        *self.shared.notes.lock().unwrap_or_else(PoisonError::into_inner) = notes;
    }

    /// The last notes of every member heard since this agent started.
    pub fn notes(&self) -> BTreeMap<MemberName, Notes> {
        self.shared.table().notes()
    }

    /// The last words of every member heard since this agent started.
    pub fn heard(&self) -> BTreeMap<MemberName, Peer> {
        self.shared.table().heard()
    }

    /// Resolves when a member says something new, a new member is heard or one is refused; not for mere repetition.
    /// A change between two calls is not lost. For one waiter.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }
}

impl Shared {
    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
