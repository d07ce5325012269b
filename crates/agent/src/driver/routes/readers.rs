//! Who is in `pgread`, and when it must be written (K1).
//!
//! Decides between what this leader wants, what it wrote, and what the slice says now: a set of readers is written once it
//! was the same for a moment, and again when somebody else changed or deleted the slice. Must never write on the
//! strength of a watch that is older than its own last write. Proved by the tests below and by the end-to-end scenario
//! `objects`.

use std::net::IpAddr;
use std::time::Duration;

use ha::{Epoch, Instant};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kubernetes::slices::{Family, SliceState, Target, slice_name};
use kubernetes::watch::{Lookup, Watch};

/// How long a set of readers must be the same before it is written, and how long a watch may lag behind our own write.
const DEBOUNCE: Duration = Duration::from_secs(1);

/// The readers of one Service.
#[derive(Default)]
pub(super) struct Readers {
    watch: Option<(String, Watch<EndpointSlice>)>,
    wanted: (Vec<Target>, Instant),
    written: Option<Written>,
}

/// What was written last.
struct Written {
    epoch: Epoch,
    readers: Vec<Target>,
    at: Instant,
}

impl Readers {
    /// Watches the slice of this Service in place of any other.
    pub(super) fn watch(&mut self, client: &kube::Client, namespace: &str, service: &str, own: &IpAddr) {
        let name = slice_name(service, Family::of(own));
        if self.watch.as_ref().is_none_or(|(watched, _)| *watched != name) {
            self.watch = Some((name.clone(), Watch::named(client.clone(), namespace, &name)));
        }
    }

    /// The readers to write now, if any.
    pub(super) fn due(
        &mut self,
        epoch: Epoch,
        readers: Vec<Target>,
        own: &IpAddr,
        now: Instant,
    ) -> Option<Vec<Target>> {
        let slice = match &self.watch {
            Some((name, watch)) => watch.seen().lookup(name),
            None => Lookup::Unknown,
        };
        let said = said(&slice, epoch, &readers, Family::of(own));
        self.decide(epoch, readers, said, now)
    }

    /// They were written.
    pub(super) fn wrote(&mut self, epoch: Epoch, readers: Vec<Target>, at: Instant) {
        self.written = Some(Written { epoch, readers, at });
    }

    fn decide(
        &mut self,
        epoch: Epoch,
        readers: Vec<Target>,
        said: Option<bool>,
        now: Instant,
    ) -> Option<Vec<Target>> {
        if self.wanted.0 != readers {
            self.wanted = (readers.clone(), now);
        }
        let due = match &self.written {
            Some(written) if written.epoch == epoch => {
                let settled = now.since(self.wanted.1.max(written.at)) >= DEBOUNCE;
                settled && (written.readers != readers || said == Some(false))
            }
            // The first of a term at once: it replaces what another leader said.
            _ => true,
        };
        due.then_some(readers)
    }
}

/// Whether the slice says so; none when nobody knows.
fn said(slice: &Lookup<EndpointSlice>, epoch: Epoch, readers: &[Target], family: Family) -> Option<bool> {
    let slice = match slice {
        Lookup::Unknown => return None,
        Lookup::Missing => return Some(false),
        Lookup::Known(slice) => SliceState::of(slice.as_ref().clone()),
    };
    let mut wanted: Vec<(Option<&str>, String)> = readers
        .iter()
        .flat_map(|reader| reader.addresses.iter().map(|address| (Some(reader.uid.as_str()), *address)))
        .filter(|(_, address)| Family::of(address) == family)
        .map(|(uid, address)| (uid, address.to_string()))
        .collect();
    let mut there: Vec<(Option<&str>, String)> = slice
        .endpoints
        .iter()
        .flat_map(|(uid, addresses)| addresses.iter().map(|address| (uid.as_deref(), address.clone())))
        .collect();
    wanted.sort();
    there.sort();
    Some(slice.epoch == Some(epoch) && wanted == there)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::default().after(Duration::from_millis(millis))
    }

    fn reader(uid: &str, address: &str) -> Target {
        Target {
            pod: format!("pg-{uid}"),
            uid: uid.to_owned(),
            addresses: vec![address.parse().unwrap()],
            node: String::new(),
            zone: None,
        }
    }

    #[test]
    fn a_set_is_written_once_it_has_settled() {
        let mut readers = Readers::default();
        let (one, two) = (vec![reader("a", "10.0.0.1")], vec![reader("b", "10.0.0.2")]);
        assert_eq!(readers.decide(Epoch(1), one.clone(), None, at(0)), Some(one.clone()), "first of a term");
        readers.wrote(Epoch(1), one.clone(), at(10));
        assert_eq!(readers.decide(Epoch(1), one, Some(true), at(5000)), None);
        assert_eq!(readers.decide(Epoch(1), two.clone(), Some(false), at(5000)), None, "just changed");
        assert_eq!(readers.decide(Epoch(1), two.clone(), Some(false), at(6000)), Some(two));
    }

    #[test]
    fn k2_a_slice_that_somebody_else_changed_is_written_again() {
        let mut readers = Readers::default();
        let set = vec![reader("a", "10.0.0.1")];
        readers.wrote(Epoch(1), set.clone(), at(0));
        assert_eq!(readers.decide(Epoch(1), set.clone(), Some(false), at(900)), None, "the watch may lag");
        assert_eq!(readers.decide(Epoch(1), set.clone(), None, at(9000)), None, "unknown is no change");
        assert_eq!(readers.decide(Epoch(1), set.clone(), Some(false), at(9000)), Some(set));
    }

    #[test]
    fn a_slice_is_compared_by_epoch_uid_and_address() {
        let set = [reader("a", "10.0.0.1")];
        let slice = |epoch: &str, uid: &str, address: &str| -> Lookup<EndpointSlice> {
            Lookup::Known(Arc::new(
                serde_json::from_value(serde_json::json!({
                    "metadata": {"annotations": {api::names::labels::SLICE_EPOCH: epoch}},
                    "addressType": "IPv4",
                    "endpoints": [{"addresses": [address], "targetRef": {"uid": uid}}],
                }))
                .unwrap(),
            ))
        };
        let said = |slice: &Lookup<EndpointSlice>| said(slice, Epoch(2), &set, Family::V4);
        assert_eq!(said(&slice("2", "a", "10.0.0.1")), Some(true));
        assert_eq!(said(&slice("1", "a", "10.0.0.1")), Some(false));
        assert_eq!(said(&slice("2", "b", "10.0.0.1")), Some(false));
        assert_eq!(said(&slice("2", "a", "10.0.0.9")), Some(false));
        assert_eq!(said(&Lookup::Missing), Some(false));
        assert_eq!(said(&Lookup::Unknown), None);
    }
}
