//! What every act needs: who we are, where things are, and what was agreed so far.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::Context as _;
use api::MemberSettings;
use ha::{Incarnation, Instant, MemberId, Names, Upstream};
use postgres::Layout;
use postgres::binaries::{Binaries, Major};
use postgres::settings::{Access, Hba, HbaLine, Protocol, Settings};
use postgres::wal::SegmentSize;
use tokio::sync::{Notify, watch};

use crate::clock;
use crate::config::Config;
use crate::driver::files::{Credentials, Files};
use crate::driver::led_to::LedTo;
use crate::driver::parameters::{Parameters, parse};
use crate::driver::promise::Store;
use crate::driver::record::Keeper;
use crate::driver::tracked::Tracked;
use crate::http::Findings;
use crate::peers::Channel;
use crate::supervised::Postmaster;

/// Shared by the loop, the probe and the acts.
pub(crate) struct Context {
    /// The pod's description.
    pub(crate) config: Config,
    /// Paths on the volume.
    pub(crate) layout: Layout,
    /// The durable promise.
    pub(crate) promise: Store,
    /// What only we know of the running Postgres.
    pub(crate) tracked: Tracked,
    /// The record.
    pub(crate) record: Keeper,
    /// Settings, certificates, passwords.
    pub(crate) files: Files,
    /// Postgres's processes.
    pub(crate) postmaster: Postmaster,
    /// The other members.
    pub(crate) channel: Channel,
    /// Asks the probe to look at once.
    pub(crate) look: Notify,
    /// The user's part of the configuration.
    pub(crate) parameters: Parameters,
    /// The passwords that this run of Postgres was given.
    pub(crate) passwords: Mutex<Option<(Credentials, Credentials)>>,
    /// After a rewind: whom the next start streams from, since it needs more than it has to become consistent.
    pub(crate) catch_up: Mutex<Option<Upstream>>,
    /// The programs, once found.
    pub(crate) programs: Mutex<Option<Binaries>>,
    /// The size of a log segment, once read: the same in every copy of one database.
    pub(crate) segment: OnceLock<SegmentSize>,
    /// Whether writers may still be led here.
    pub(crate) led_to: LedTo,
    /// What a user should know, as of the last look.
    pub(crate) findings: watch::Sender<Findings>,
    /// Acts that began and ended, and when the last one ended.
    pub(crate) acts: Acts,
}

/// Counts acts on Postgres, so that a look knows what it may rely on.
#[derive(Debug, Default)]
pub(crate) struct Acts {
    began: AtomicU64,
    ended: AtomicU64,
    ended_at: AtomicU64,
}

/// An act that runs; ends when dropped, however that comes.
pub(crate) struct Acting<'a>(&'a Context);

impl Drop for Acting<'_> {
    fn drop(&mut self) {
        self.0.acts.ended.fetch_add(1, Ordering::AcqRel);
        self.0.acts.ended_at.store(clock::now().0, Ordering::Release);
        self.0.look.notify_one();
    }
}

impl Context {
    /// The passwords that were put in.
    pub(crate) fn provisioned_with(&self) -> Option<(Credentials, Credentials)> {
        self.passwords.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// To be held while an act runs.
    pub(crate) fn acting(&self) -> Acting<'_> {
        self.acts.began.fetch_add(1, Ordering::AcqRel);
        Acting(self)
    }

    /// Whether an act runs.
    pub(crate) fn is_acting(&self) -> bool {
        self.acts.began.load(Ordering::Acquire) != self.acts.ended.load(Ordering::Acquire)
    }

    /// How many acts have ended.
    pub(crate) fn acts_ended(&self) -> u64 {
        self.acts.ended.load(Ordering::Acquire)
    }

    /// When the last act ended: looks that began before are out of date.
    pub(crate) fn acted_at(&self) -> Instant {
        Instant(self.acts.ended_at.load(Ordering::Acquire))
    }

    /// This member.
    pub(crate) fn member(&self) -> MemberId {
        MemberId { name: self.config.member(), incarnation: self.promise.get().incarnation }
    }

    /// The last usable settings.
    pub(crate) fn settings(&self) -> anyhow::Result<Arc<MemberSettings>> {
        self.files.get().settings.context("no settings have been read yet")
    }

    /// The programs for the data directory, or for the wanted major when there is none.
    pub(crate) fn binaries(&self) -> anyhow::Result<Binaries> {
        let mut known = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(binaries) = &*known {
            return Ok(binaries.clone());
        }
        let found = if let Some(directory) = &self.config.pg_bin {
            Binaries::at(directory)
                .with_context(|| format!("no PostgreSQL server programs in {}", directory.display()))?
        } else {
            let wanted = self.settings().ok().and_then(|s| u16::try_from(s.version).ok()).map(Major);
            let data = self.layout.data();
            Binaries::discover(self.layout.has_data().then_some(data.as_path()), wanted)?
        };
        Ok(known.insert(found).clone())
    }

    /// Where to reach an upstream, and how to prove who we are.
    pub(crate) fn upstream(&self, upstream: &Upstream) -> anyhow::Result<postgres::conninfo::Upstream> {
        let address: IpAddr = upstream
            .address
            .parse()
            .with_context(|| format!("{} has no usable address: {:?}", upstream.member, upstream.address))?;
        Ok(postgres::conninfo::Upstream {
            address,
            server_name: self.config.host_of(&upstream.member.name),
            port: api::names::ports::POSTGRES,
            tls: self.files.client_tls(),
        })
    }

    /// Members whose replication role the certificate may take: all that the record or a peer names.
    pub(crate) fn members(&self) -> BTreeSet<Incarnation> {
        let mut members = self.tracked.get().prepared;
        members.insert(self.promise.get().incarnation);
        members.extend(self.channel.heard().values().map(|peer| peer.announcement.member.incarnation));
        let state = self.record.get();
        let record = state.record().cloned().or_else(|| self.promise.get().last_record);
        if let Some(record) = record {
            members.extend(record.leader.iter().map(|leader| leader.incarnation));
            members.extend(record.electorates.iter().flat_map(|e| e.members.iter().map(|m| m.incarnation)));
        }
        members
    }

    /// The configuration of this member in this role.
    ///
    /// Names that nobody knows are written as the placeholder, which nobody can satisfy: never as empty (P5).
    pub(crate) fn configuration(
        &self,
        upstream: Option<&Upstream>,
        names: &Names,
        access: Access,
    ) -> anyhow::Result<Settings> {
        let wanted = self.settings()?;
        let promise = self.promise.get();
        let usable = self.parameters.usable(&wanted.postgres);
        let user = parse(&usable)?;
        let mut protocol = Protocol::new(
            self.binaries()?.major(),
            self.layout.clone(),
            promise.incarnation,
            self.config.cluster.clone(),
        );
        protocol.listen_addresses.clone_from(&self.config.pg_listen);
        protocol.tls = Some(self.files.server_tls());
        protocol.names = if *names == Names::Unknown { Names::Placeholder } else { names.clone() };
        protocol.floors = self.tracked.get().floors;
        protocol.upstream = upstream.map(|upstream| self.upstream(upstream)).transpose()?;
        let mut hba = Hba::closed().with_access(access);
        api::names::REPLICATION_COMMON_NAME.clone_into(&mut hba.member_common_name);
        hba.members = self.members();
        hba.user_lines = usable.hba.iter().map(|line| HbaLine::new(line)).collect::<Result<_, _>>()?;
        Ok(Settings { user, protocol, hba })
    }
}
