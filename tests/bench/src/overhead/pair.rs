//! Two members with supervisors and agents, and everything beside them that they need.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use api::names;
use api::settings::MemberSettings;
use driver::api_server::ApiServer;
use driver::member::Member;
use driver::objects::{self, CLUSTER};
use ha::Record;
use kubernetes::record::RecordRead;
use postgres::{Binaries, Layout, Session};
use serde_json::{Value, json};

use super::{ASK, BOUND, LOOK};

/// What the servers are given instead of what the driver's test gives them: room for the clients, and no checkpoint every
/// few seconds.
const PARAMETERS: [(&str, &str); 7] = [
    ("shared_buffers", "256MB"),
    ("max_connections", "100"),
    ("max_worker_processes", "8"),
    ("min_wal_size", "1GB"),
    ("max_wal_size", "4GB"),
    ("wal_keep_size", "128MB"),
    ("checkpoint_timeout", "30min"),
];

/// The members; ended when dropped.
pub(super) struct Pair {
    pub(super) members: Vec<Member>,
    api: ApiServer,
}

impl Pair {
    /// Two empty volumes below `root`, nothing started.
    pub(super) async fn new(root: &Path, binaries: &Binaries) -> Result<Self> {
        let at = |host: u8| Ipv4Addr::new(127, 1, 1, host);
        let api = ApiServer::start((at(10), 8001).into()).await;
        let addresses: BTreeMap<String, Ipv4Addr> =
            [(names::pod(CLUSTER, 0), at(1)), (names::pod(CLUSTER, 1), at(2))].into();
        objects::make(&api, binaries.major().0, &addresses);
        parameters(&api)?;
        let (api_at, programs) = (api.at.to_string(), binaries.directory());
        let members = addresses
            .iter()
            .map(|(name, address)| Member::new(root, name, *address, &api_at, programs).unwatched())
            .collect();
        Ok(Self { members, api })
    }

    /// Starts both and waits until one of them leads with the other in its quorum.
    pub(super) async fn start(&self) -> Result<&Member> {
        for member in &self.members {
            member.start();
        }
        let begun = Instant::now();
        loop {
            let why = match self.leader() {
                None => "nobody leads both".to_owned(),
                Some(leader) => match streams(&leader.layout).await {
                    Ok(true) => return Ok(leader),
                    Ok(false) => "the standby is in no quorum".to_owned(),
                    Err(error) => format!("{error:#}"),
                },
            };
            ensure!(
                begun.elapsed() < BOUND,
                "the pair does not come up: {why}; {:?}\n{}",
                self.record(),
                self.members.iter().map(|it| it.log(false)).collect::<Vec<_>>().join("\n")
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// An error unless this member still leads the whole pair: figures of a pair that fell apart meanwhile say nothing.
    pub(super) async fn ensure_whole(&self, leader: &Member) -> Result<()> {
        let leads = self.leader().is_some_and(|it| it.name == leader.name);
        ensure!(
            leads && streams(&leader.layout).await?,
            "the pair fell apart meanwhile: {:?}",
            self.record()
        );
        Ok(())
    }

    /// Ends every process of both, as a power cut would.
    pub(super) fn kill(&self) {
        self.members.iter().for_each(Member::kill);
    }

    fn record(&self) -> Option<Record> {
        let lease = self.api.get("leases", &names::lease(CLUSTER))?;
        match RecordRead::of(serde_json::from_value(lease).ok()?) {
            RecordRead::Known(there) => Some(there.record().clone()),
            _ => None,
        }
    }

    fn leader(&self) -> Option<&Member> {
        let record = self.record()?;
        let [electorate] = record.electorates.as_slice() else { return None };
        let whole = electorate.members.len() == 1 && electorate.acks == 1 && record.fence_xid.is_some();
        let leader = record.leader.as_ref().filter(|_| whole)?;
        self.members.iter().find(|member| member.name == leader.name.0)
    }
}

/// Whether this master has its one standby in its quorum, and serves clients.
pub(super) async fn streams(layout: &Layout) -> Result<bool> {
    const QUORUM: &str = "SELECT NOT pg_is_in_recovery() AND (SELECT count(*) FROM pg_stat_replication \
        WHERE state = 'streaming' AND sync_state = 'quorum') = 1";
    let session = Session::open(layout, ASK).await?;
    Ok(session.row("look for the quorum", QUORUM, &[]).await?.get(0))
}

/// Changes the wishes before any agent has read them.
fn parameters(api: &ApiServer) -> Result<()> {
    let mut map = api.get("configmaps", &names::settings(CLUSTER)).context("there are no settings")?;
    let text = map["data"][names::SETTINGS_KEY].as_str().context("there are no settings")?;
    let mut settings: Value = serde_json::from_str(text).context("read the settings")?;
    // The product's defaults: how often agents look and speak follows from them.
    settings["failover"] = json!({"detectionMs": 2000, "fenceMs": 3000, "shrinkAfterMs": 5000});
    settings["postgres"]["parameters"] =
        PARAMETERS.iter().map(|(name, value)| (*name, json!(value))).collect();
    let settings = MemberSettings::from_json(&settings.to_string()).context("the settings do not fit")?;
    map["data"][names::SETTINGS_KEY] = settings.to_json().context("write the settings")?.into();
    api.put("configmaps", map);
    Ok(())
}
