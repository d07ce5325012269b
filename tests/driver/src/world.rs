//! One cluster of two members with an API server and a client of its own.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use api::names;
use ha::Record;

use crate::api_server::ApiServer;
use crate::member::Member;
use crate::objects::{self, CLUSTER, WITNESS};
use crate::rows::Rows;
use crate::state;
use crate::steps::Steps;

/// The world. Dropping it ends every process of it.
pub(crate) struct World {
    pub(crate) number: u8,
    pub(crate) members: Vec<Member>,
    pub(crate) api: ApiServer,
    pub(crate) steps: Steps,
    pub(crate) rows: Rows,
    witness: Mutex<Option<Member>>,
    binaries: PathBuf,
    major: u16,
    addresses: BTreeMap<String, Ipv4Addr>,
    root: tempfile::TempDir,
}

impl World {
    /// Two empty volumes, nothing started. Each world has a network of its own on the loopback.
    pub(crate) async fn new(number: u8, binaries: &Path, major: u16) -> Self {
        let root = tempfile::Builder::new().prefix("w").tempdir().unwrap();
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
        let (witness, binaries) = (Mutex::default(), binaries.to_owned());
        Self { number, members, api, steps, rows, witness, binaries, major, addresses, root }
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
        let mut members = self.addresses.clone();
        if self.has_witness() {
            members.insert(WITNESS.to_owned(), self.witness_address());
        }
        objects::settings(&self.api, self.major, &members, away, detection);
    }

    /// Lets a third member make a copy of its own, and follow.
    pub(crate) fn call_witness(&self, detection: Duration) {
        let address = self.witness_address();
        objects::pod(&self.api, WITNESS, address);
        let witness = Member::new(self.root(), WITNESS, address, &self.api.at.to_string(), &self.binaries);
        witness.start();
        *self.witness.lock().unwrap() = Some(witness);
        self.settings(&[], detection);
    }

    /// Ends it.
    pub(crate) fn dismiss_witness(&self, detection: Duration) {
        if self.witness.lock().unwrap().take().is_some() {
            self.settings(&[], detection);
        }
    }

    pub(crate) fn has_witness(&self) -> bool {
        self.witness.lock().unwrap().is_some()
    }

    /// What the third member said last.
    pub(crate) fn witness_log(&self, whole: bool) -> Option<String> {
        self.witness.lock().unwrap().as_ref().map(|witness| witness.log(whole))
    }

    fn witness_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, 1, self.number, 3)
    }
}
