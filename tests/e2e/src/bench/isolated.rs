//! A session on the cut-off side: for how long the old master goes on acknowledging to it.
//!
//! It only counts. Whether what was acknowledged there is in the database afterwards is judged as everything else is, and
//! what is missing counts as lost.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::timeline;
use crate::client::{Client, Judgement, Wish};
use crate::cluster::Cluster;
use crate::faults::{Fault, Victim};
use crate::world::World;

/// What such a session was told while its node was cut off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Isolated {
    /// Acknowledgements that arrived after the cut was made.
    pub(crate) acknowledged: u64,
    /// When the last one of them arrived, in milliseconds after the cut was made; 0 without any.
    pub(crate) for_ms: u64,
}

/// A client that keeps to the master's own address, on the master's node.
#[derive(Debug)]
pub(crate) struct Inside(Client);

impl Inside {
    /// Starts it where the fault leaves clients on the master's side; nothing elsewhere.
    pub(crate) async fn start(
        world: &World,
        cluster: &Cluster,
        fault: Fault,
        victim: &Victim,
    ) -> Result<Option<Self>> {
        if !fault.cuts_off() {
            return Ok(None);
        }
        let wish = Wish {
            node: Some(victim.node.clone()),
            host: Some(cluster.member_host(&victim.pod)),
            only_kept: true,
            ..Wish::default()
        };
        Client::start(world, cluster, &wish).await.map(|client| Some(Self(client)))
    }

    /// After it is reachable again: what it was told between the cut and its end, in microseconds since 1970, and what is
    /// true of it.
    pub(crate) async fn account(
        self,
        world: &World,
        cluster: &Cluster,
        cut: u64,
        mended: u64,
    ) -> Result<(Isolated, Vec<Judgement>)> {
        self.0.stop(world).await?;
        let acks = timeline::acknowledged(&self.0.log(world).await?)?;
        let told = told(acks.values().flatten().copied(), cut, mended);
        Ok((told, self.0.judge(world, cluster).await?))
    }
}

fn told(acks: impl Iterator<Item = u64>, cut: u64, mended: u64) -> Isolated {
    let times: Vec<u64> = acks.filter(|at| (cut + 1..mended).contains(at)).collect();
    let last = times.iter().max().copied().unwrap_or(cut);
    Isolated { acknowledged: times.len() as u64, for_ms: (last - cut).div_ceil(1000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_acknowledged_during_the_cut_counts() {
        let acks = [900, 1000, 1001, 5_500, 9000, 12_000];
        assert_eq!(told(acks.into_iter(), 1000, 9000), Isolated { acknowledged: 2, for_ms: 5 });
        assert_eq!(told(acks.into_iter(), 10_000, 11_000), Isolated::default());
    }
}
