//! What the product promises for a fault, beside what was measured: the table of targets in the design.

use crate::faults::Fault;

/// Longest time without an acknowledgement, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// Of half of all repetitions.
    pub(crate) p50: u64,
    /// Of 99 of 100.
    pub(crate) p99: u64,
}

/// Another slice's change may come first, and then kube-proxy waits up to a second (K4).
const SLICE_CHANGES: u64 = 1000;

/// Of three members with one acknowledgement; none where nothing is promised in figures.
pub(crate) fn target(fault: &str, slice_changes: bool) -> Option<Target> {
    let fault = Fault::ALL.into_iter().find(|known| known.name() == fault)?;
    let (p50, p99) = match fault {
        Fault::Switchover => (500, 1500),
        Fault::Postmaster => (600, 1500),
        Fault::Delete | Fault::DeleteControllerDown => (1000, 2000),
        Fault::DeleteByForce => (1000, 3000),
        Fault::NodePower | Fault::NodeNetwork => (2500, 4000),
        Fault::AgentFrozen => (3000, 5000),
        _ => return None,
    };
    let more = if slice_changes { SLICE_CHANGES } else { 0 };
    Some(Target { p50: p50 + more, p99: p99 + more })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_of_a_known_fault_and_k4_adds_a_second() {
        assert_eq!(target("postmaster", false), Some(Target { p50: 600, p99: 1500 }));
        assert_eq!(target("postmaster", true), Some(Target { p50: 1600, p99: 2500 }));
        assert_eq!(target("api-down", false), None);
        assert_eq!(target("lightning", false), None);
    }
}
