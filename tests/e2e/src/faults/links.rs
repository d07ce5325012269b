//! One direction of a node's cable: packets are dropped in the node's own network, whatever they belong to.

use anyhow::Result;

use crate::world::World;

/// Name of the table that drops them.
const TABLE: &str = "matriarch_fault";

/// Which packets are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// Those that arrive.
    In,
    /// Those that leave.
    Out,
}

/// Drops what goes this way over the node's cable, established connections included.
pub(super) async fn filter(world: &World, node: &str, lost: Direction) -> Result<()> {
    // Before any routing and after it: packets of the node itself and of its pods alike.
    let (hook, side) = match lost {
        Direction::In => ("prerouting", "iifname"),
        Direction::Out => ("postrouting", "oifname"),
    };
    let rules = format!(
        "add table inet {TABLE}; add chain inet {TABLE} lost {{ type filter hook {hook} priority -350; }}; \
         add rule inet {TABLE} lost {side} eth0 drop"
    );
    world.rig(&["shell", node, "nft", &rules]).await.map(drop)
}

/// Drops nothing any more; a node that was booted meanwhile has forgotten it already.
pub(super) async fn clear(world: &World, node: &str) -> Result<()> {
    // Adding it first makes deleting it right in both cases.
    let rules = format!("add table inet {TABLE}; delete table inet {TABLE}");
    world.rig(&["shell", node, "nft", &rules]).await.map(drop)
}
