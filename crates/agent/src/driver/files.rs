//! Settings and certificates: watched by name, checked, kept beside PGDATA, put where PostgreSQL reads them (K10).
//!
//! Mounted volumes bring changes 60–90 s late, so nothing is mounted. Decides when a new certificate may be used:
//! when it matches its key. Must never replace a good copy by one that cannot be used, and never write a key with a
//! mode wider than 0600. A member without the API server lives on the copies on its volume.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use api::MemberSettings;
use api::names;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kubernetes::watch::{Lookup, Watch};
use postgres::conninfo::ClientTls;
use postgres::durable;
use postgres::settings::ServerTls;
use tokio::sync::watch;

use crate::config::Config;
use crate::peers::Channel;

/// Keys in every Secret of type `kubernetes.io/tls`, and the bundle of authorities beside them.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITY: &str = "ca.crt";

/// What is known from files and watches.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Known {
    /// The last usable settings.
    pub(crate) settings: Option<Arc<MemberSettings>>,
    /// What is wrong with newer ones, if anything.
    pub(crate) settings_refused: Option<String>,
    /// Certificate and key of the server are in place.
    pub(crate) server_ready: bool,
    /// Certificate and key towards an upstream are in place.
    pub(crate) client_ready: bool,
    /// Counts changes of the server's files: PostgreSQL is to be reloaded.
    pub(crate) tls_generation: u64,
    /// Certificate and bundle of each kind as they were put in place last.
    certificates: BTreeMap<Kind, Arc<(String, String)>>,
    /// What the operator compares with what it published (K10); `None` until every kind is in place.
    pub(crate) acknowledgement: Option<String>,
    /// Passwords by name of the Secret.
    pub(crate) superuser: Option<Credentials>,
    /// The application's role and database.
    pub(crate) app: Option<Credentials>,
}

impl Known {
    /// Remembers what was put in place. Whether that is anything new.
    fn put_in_place(&mut self, kind: Kind, certificate: &str, bundle: &str) -> bool {
        let pair = Arc::new((certificate.to_owned(), bundle.to_owned()));
        if self.certificates.insert(kind, Arc::clone(&pair)).is_some_and(|before| before == pair) {
            return false;
        }
        let all: BTreeMap<_, _> =
            self.certificates.iter().map(|(kind, pair)| (kind.name(), (&*pair.0, &*pair.1))).collect();
        self.acknowledgement = (all.len() == Kind::ALL.len()).then(|| pki::acknowledgement(&all)).flatten();
        true
    }
}

/// A role's name and password. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The role.
    pub(crate) user: String,
    /// Its password.
    pub(crate) password: String,
    /// Its database, for the application's.
    pub(crate) database: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The running watches and what they brought.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    known: watch::Sender<Known>,
    places: Places,
}

#[derive(Debug, Clone)]
struct Places {
    /// The memory volume from which PostgreSQL reads.
    memory: PathBuf,
    /// The directory beside PGDATA with the last copies.
    kept: PathBuf,
}

impl Places {
    fn kept(&self, name: &str) -> PathBuf {
        self.kept.join(name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Server,
    Client,
    Peer,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Server, Self::Client, Self::Peer];

    fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Peer => "peer",
        }
    }
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Identity {
    certificate: String,
    key: String,
    authority: String,
}

impl Files {
    /// Uses the copies on the volume, then watches for newer ones for as long as the runtime lives.
    pub(crate) async fn start(
        config: &Config,
        client: kube::Client,
        channel: Channel,
    ) -> anyhow::Result<Self> {
        let kept = config.places.state().join("kept");
        let places = Places { memory: config.places.tls.clone(), kept };
        for directory in [&places.kept, &places.memory.join("server"), &places.memory.join("client")] {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("making the directory {}", directory.display()))?;
        }
        let files = Self { known: watch::Sender::new(Known::default()), places };
        files.load_kept(&channel).await;
        let (cluster, namespace) = (&config.cluster, &config.namespace);
        let settings = Watch::<ConfigMap>::named(client.clone(), namespace, &names::settings(cluster));
        tokio::spawn(files.clone().follow_settings(settings, names::settings(cluster)));
        let secret = |name: &str| Watch::<Secret>::named(client.clone(), namespace, name);
        for (kind, name) in [
            (Kind::Server, names::server_secret(cluster)),
            (Kind::Client, names::client_secret(cluster)),
            (Kind::Peer, names::peer_secret(cluster)),
        ] {
            tokio::spawn(files.clone().follow_identity(secret(&name), name, kind, channel.clone()));
        }
        for (app, name) in [(false, names::superuser_secret(cluster)), (true, names::app_secret(cluster))] {
            tokio::spawn(files.clone().follow_credentials(secret(&name), name, app));
        }
        Ok(files)
    }

    /// What is known now.
    pub(crate) fn get(&self) -> Known {
        self.known.borrow().clone()
    }

    /// Reports changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// Where the server's certificate is read from.
    pub(crate) fn server_tls(&self) -> ServerTls {
        let directory = self.places.memory.join("server");
        ServerTls {
            certificate: directory.join(CERTIFICATE),
            key: directory.join(KEY),
            authority: directory.join(AUTHORITY),
        }
    }

    /// Where the certificate towards an upstream is read from.
    pub(crate) fn client_tls(&self) -> ClientTls {
        let directory = self.places.memory.join("client");
        ClientTls {
            certificate: directory.join(CERTIFICATE),
            key: directory.join(KEY),
            authority: directory.join(AUTHORITY),
        }
    }

    async fn load_kept(&self, channel: &Channel) {
        if let Ok(text) = tokio::fs::read_to_string(self.places.kept("settings.json")).await {
            self.take_settings(&text, false).await;
        }
        for kind in Kind::ALL {
            let path = self.places.kept(&format!("{}.json", kind.name()));
            let Ok(text) = tokio::fs::read(path).await else { continue };
            match serde_json::from_slice(&text) {
                Ok(identity) => self.take_identity(identity, kind, channel, false).await,
                Err(error) => {
                    tracing::warn!(kind = kind.name(), %error, "a kept certificate is not readable");
                }
            }
        }
    }

    async fn follow_settings(self, watch: Watch<ConfigMap>, name: String) {
        let mut seen = watch.subscribe();
        loop {
            let lookup = seen.borrow_and_update().lookup(&name);
            if let Lookup::Known(map) = lookup
                && let Some(text) = map.data.as_ref().and_then(|data| data.get(names::SETTINGS_KEY))
            {
                self.take_settings(text, true).await;
            }
            if seen.changed().await.is_err() {
                return;
            }
        }
    }

    async fn take_settings(&self, text: &str, keep: bool) {
        let settings = match MemberSettings::from_json(text) {
            Ok(settings) => Arc::new(settings),
            Err(error) => {
                let why = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(why, "settings are refused, the last ones stay");
                self.known.send_modify(|known| known.settings_refused = Some(why));
                return;
            }
        };
        if keep && let Err(error) = write(self.places.kept("settings.json"), text.as_bytes().to_vec()).await {
            tracing::warn!(%error, "the settings could not be kept on the volume");
        }
        self.known.send_if_modified(|known| {
            let changed = known.settings.as_ref() != Some(&settings) || known.settings_refused.is_some();
            if changed {
                tracing::info!(generation = settings.generation, "settings");
            }
            known.settings = Some(settings);
            known.settings_refused = None;
            changed
        });
    }

    async fn follow_identity(self, watch: Watch<Secret>, name: String, kind: Kind, channel: Channel) {
        let mut seen = watch.subscribe();
        loop {
            let lookup = seen.borrow_and_update().lookup(&name);
            if let Lookup::Known(secret) = lookup
                && let Some(identity) = identity(&secret)
            {
                self.take_identity(identity, kind, &channel, true).await;
            }
            if seen.changed().await.is_err() {
                return;
            }
        }
    }

    async fn take_identity(&self, identity: Identity, kind: Kind, channel: &Channel, keep: bool) {
        if let Err(error) = self.try_identity(&identity, kind, channel, keep).await {
            tracing::warn!(
                kind = kind.name(),
                error = format!("{error:#}"),
                "a certificate is not usable, the last one stays"
            );
        }
    }

    async fn try_identity(
        &self,
        new: &Identity,
        kind: Kind,
        channel: &Channel,
        keep: bool,
    ) -> anyhow::Result<()> {
        pki::keys_match(&new.certificate, &new.key)?;
        pki::Bundle::from_pem(&new.authority)?;
        if keep {
            let path = self.places.kept(&format!("{}.json", kind.name()));
            write(path, serde_json::to_vec(new)?).await?;
        }
        if kind == Kind::Peer {
            channel.set_tls(&new.authority, &new.certificate, &new.key)?;
            self.known.send_if_modified(|known| known.put_in_place(kind, &new.certificate, &new.authority));
            return Ok(());
        }
        let directory = self.places.memory.join(kind.name());
        let mut changed = false;
        for (file, content) in [(KEY, &new.key), (CERTIFICATE, &new.certificate), (AUTHORITY, &new.authority)]
        {
            changed |= write(directory.join(file), content.clone().into_bytes()).await?;
        }
        self.known.send_if_modified(|known| {
            let ready = if kind == Kind::Server { &mut known.server_ready } else { &mut known.client_ready };
            let first = !std::mem::replace(ready, true);
            let first = known.put_in_place(kind, &new.certificate, &new.authority) || first;
            if changed {
                known.tls_generation += 1;
            }
            first || changed
        });
        Ok(())
    }

    async fn follow_credentials(self, watch: Watch<Secret>, name: String, app: bool) {
        let mut seen = watch.subscribe();
        loop {
            let lookup = seen.borrow_and_update().lookup(&name);
            if let Lookup::Known(secret) = lookup
                && let Some(credentials) = credentials(&secret)
            {
                self.known.send_if_modified(|known| {
                    let place = if app { &mut known.app } else { &mut known.superuser };
                    let changed = place.as_ref() != Some(&credentials);
                    *place = Some(credentials);
                    changed
                });
            }
            if seen.changed().await.is_err() {
                return;
            }
        }
    }
}

fn text(data: &BTreeMap<String, ByteString>, key: &str) -> Option<String> {
    data.get(key).and_then(|value| String::from_utf8(value.0.clone()).ok())
}

fn identity(secret: &Secret) -> Option<Identity> {
    let data = secret.data.as_ref()?;
    Some(Identity {
        certificate: text(data, CERTIFICATE)?,
        key: text(data, KEY)?,
        authority: text(data, AUTHORITY)?,
    })
}

fn credentials(secret: &Secret) -> Option<Credentials> {
    let data = secret.data.as_ref()?;
    Some(Credentials {
        user: text(data, "user").or_else(|| text(data, "username"))?,
        password: text(data, "password")?,
        database: text(data, "dbname"),
    })
}

async fn write(path: PathBuf, content: Vec<u8>) -> anyhow::Result<bool> {
    Ok(tokio::task::spawn_blocking(move || write_private(&path, &content)).await??)
}

fn write_private(path: &Path, content: &[u8]) -> Result<bool, durable::DurableError> {
    durable::write_if_changed(path, content, 0o600)
}
