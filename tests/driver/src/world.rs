//! One cluster of two members with an API server and a client of its own.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use api::names;
use ha::Record;

use crate::api_server::ApiServer;
use crate::member::Member;
use crate::objects::{self, CLUSTER};
use crate::rows::Rows;
use crate::scratch::Scratch;
use crate::state;
use crate::steps::Steps;

/// The world. Dropping it ends every process of it.
pub(crate) struct World {
    pub(crate) number: u8,
    pub(crate) members: Vec<Member>,
    pub(crate) api: ApiServer,
    pub(crate) steps: Steps,
    pub(crate) rows: Rows,
    major: u16,
    addresses: BTreeMap<String, Ipv4Addr>,
    root: Scratch,
}

impl World {
    /// Two empty volumes, nothing started. Each world has a network of its own on the loopback.
    pub(crate) async fn new(number: u8, binaries: &Path, major: u16) -> Self {
        let root = Scratch::new_in(&std::env::temp_dir(), "w").unwrap();
        let at = |host: u8| Ipv4Addr::new(127, 1, number, host);
        let api = ApiServer::start((at(10), 8001).into()).await;
        let addresses: BTreeMap<String, Ipv4Addr> =
            [0, 1].map(|it| (names::pod(CLUSTER, it), at(u8::try_from(it).unwrap() + 1))).into();
        objects::make(&api, major, &addresses);
        let members = addresses
            .iter()
            .map(|(name, address)| Member::new(root.path(), name, *address, &api.at.to_string(), binaries))
            .collect();
        let steps = Steps::listen(root.path(), api.clone());
        let rows = Rows::write(api.clone());
        Self { number, members, api, steps, rows, major, addresses, root }
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn member(&self, name: &str) -> &Member {
        self.members.iter().find(|it| it.name == name).unwrap()
    }

    /// The record, if there is one.
    pub(crate) fn record(&self) -> Option<Record> {
        state::record(self.api.get("leases", &names::lease(CLUSTER))?)
    }

    /// Tells these members to hand over, and no others, and everybody how long to be patient with a master.
    pub(crate) fn settings(&self, away: &[&str], detection: Duration) {
        objects::settings(&self.api, self.major, &self.addresses, away, detection);
    }
}
