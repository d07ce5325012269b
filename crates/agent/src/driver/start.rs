//! What a driver is made of, put together: the API server's clients, the promise, the record, watches, the probe.
//!
//! Must never go on without the promise: a member that does not know what it promised may not take part.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ha::Memory;
use kubernetes::Calls;
use kubernetes::client::{Clients, Origin};
use kubernetes::record::RecordStore;
use kubernetes::watch::Watch;
use postgres::Layout;
use tokio::sync::{Notify, watch};

use super::care::Care;
use super::context::{Acts, Context};
use super::decision_log::DecisionLog;
use super::files::Files;
use super::lane::Lane;
use super::leave::Leave;
use super::led_to::LedTo;
use super::members::Members;
use super::news::News;
use super::parameters::Parameters;
use super::postgres_probe::Probe;
use super::record::Keeper;
use super::routes::Routes;
use super::tell::Tell;
use super::told::Told;
use super::tracked::Tracked;
use super::upkeep::Begun;
use super::{Driver, promise};
use crate::config::Config;
use crate::http::{Findings, StatusHandle};
use crate::peers::Channel;
use crate::supervised::Postmaster;

/// Bound of one call to the API server.
const CALL: Duration = Duration::from_secs(2);

impl Driver {
    /// Everything runs when this returns; nothing is decided yet.
    pub(super) async fn start(
        config: Config,
        api_server: Origin,
        postmaster: Postmaster,
        channel: Channel,
        status: StatusHandle,
    ) -> anyhow::Result<Self> {
        let clients = Clients::build(api_server, CALL).await.context("reaching the API server")?;
        let clients = clients.observed(api_server, CALL, Arc::new(status.clone()));
        let calls = Calls::new(clients.calls.clone(), CALL);
        let lease = api::names::lease(&config.cluster);
        let layout = Layout::new(&config.places.volume)
            .with_socket(&config.places.socket, api::names::ports::POSTGRES);
        let promise = promise::Store::open(&layout, &config.cluster_uid).await?;
        let record = Keeper::new(RecordStore::new(calls.clone(), &config.namespace, &lease));
        let lease_watch = Watch::named(clients.watches.clone(), &config.namespace, &lease);
        let files = Files::start(&config, clients.watches.clone(), channel.clone()).await?;
        let members = Members::new(clients.watches.clone(), &config.namespace, channel.clone());
        let tell = Tell::new(&config, calls.clone());
        let routes = Routes::new(&config, postmaster.boot(), calls, clients.watches);
        let log = DecisionLog::begin(config.decision_log.as_deref());
        let parameters = Parameters::load(config.places.state().join("kept").join("parameters.json"));
        let context = Arc::new(Context {
            config,
            layout,
            promise,
            tracked: Tracked::default(),
            record,
            files,
            postmaster,
            channel,
            look: Notify::new(),
            parameters,
            passwords: std::sync::Mutex::default(),
            catch_up: std::sync::Mutex::default(),
            programs: std::sync::Mutex::default(),
            segment: std::sync::OnceLock::new(),
            led_to: LedTo::default(),
            findings: watch::Sender::new(Findings::default()),
            acts: Acts::default(),
        });
        if context.postmaster.now().pid().is_some() {
            let hba = tokio::fs::read_to_string(context.layout.data().join("pg_hba.conf")).await;
            context.tracked.found_running(&hba.unwrap_or_default());
        }
        tokio::spawn(context.record.clone().run());
        let probe = Probe::start(Arc::clone(&context));
        let news = News::of(&context, &probe, &members, lease_watch.subscribe());
        Ok(Self {
            context,
            status,
            memory: Memory::default(),
            log,
            lane: Lane::default(),
            members,
            routes,
            probe,
            swap: None,
            tell,
            begun: Begun::default(),
            told: Told::default(),
            care: Care::default(),
            leave: Leave::default(),
            news,
            _lease: lease_watch,
        })
    }
}
