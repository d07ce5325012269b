//! The election's record as a Lease: one annotation holds the typed whole, the spec mirrors it for people and other tools.
//!
//! Must never take another program's renewal for silence: when that program moved `renewTime` or the holder and left the
//! annotation as it was, the spec tells (`tests::what_another_program_writes_is_seen`).

use ha::{
    Version,
    election::{Candidacy, Content, Record},
};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// The annotation that holds what a Lease's spec has no fields for.
pub const ELECTION_ANNOTATION: &str = "matriarch.dev/election";

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Annotation {
    epoch: Option<u64>,
    renewal: u64,
    /// What the spec said when this was written.
    renew_time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    successor: Option<String>,
    candidates: BTreeMap<String, Standing>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Standing {
    name: String,
    priority: u32,
}

pub(super) fn version(lease: &Lease) -> Version {
    Version(lease.metadata.resource_version.clone().unwrap_or_default())
}

/// What a Lease says. An annotation that cannot be read counts as none.
pub(super) fn record(lease: &Lease) -> Record {
    let annotation = annotation(lease);
    let spec = lease.spec.clone().unwrap_or_default();
    let renewed = spec.renew_time.map_or(0, |time| time.0.as_microsecond());
    let renewal = if annotation.renew_time == renewed { annotation.renewal } else { renewed.unsigned_abs() };
    let candidates = annotation
        .candidates
        .into_iter()
        .map(|(identity, standing)| {
            (identity, Candidacy { name: standing.name, priority: standing.priority })
        })
        .collect();
    let content = Content {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        epoch: annotation.epoch,
        renewal,
        ttl: spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs),
        successor: annotation.successor,
        candidates,
    };
    Record { version: version(lease), content }
}

fn annotation(lease: &Lease) -> Annotation {
    let annotations = lease.metadata.annotations.as_ref();
    let text = annotations.and_then(|annotations| annotations.get(ELECTION_ANNOTATION));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The Lease that says `content`; what else is in `known` stays.
pub(super) fn build(known: Option<&Lease>, namespace: &str, name: &str, content: &Content) -> Lease {
    let mut metadata = known.map_or_else(
        || ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        |known| known.metadata.clone(),
    );
    metadata.managed_fields = None;
    let before = known.and_then(|known| known.spec.clone()).unwrap_or_default();
    let said = known.map(record).map(|record| record.content);
    let renews = said.as_ref().is_none_or(|said| said.renewal != content.renewal);
    let same_term =
        said.as_ref().is_some_and(|said| (&said.holder, said.epoch) == (&content.holder, content.epoch));
    let now = MicroTime(Timestamp::now());
    let renew_time = if renews { Some(now.clone()) } else { before.renew_time };
    let held = content.holder.is_some();
    let transitions = before.lease_transitions.unwrap_or(0);
    let spec = LeaseSpec {
        holder_identity: content.holder.clone(),
        // Rounded up: whoever goes by it waits rather too long.
        lease_duration_seconds: content
            .ttl
            .map(|ttl| ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0))
            .and_then(|seconds| i32::try_from(seconds).ok()),
        lease_transitions: Some(if held && !same_term { transitions.saturating_add(1) } else { transitions }),
        acquire_time: before.acquire_time.filter(|_| same_term).or_else(|| held.then_some(now)),
        renew_time: renew_time.clone(),
        ..LeaseSpec::default()
    };
    let annotation = Annotation {
        epoch: content.epoch,
        renewal: content.renewal,
        renew_time: renew_time.map_or(0, |time| time.0.as_microsecond()),
        successor: content.successor.clone(),
        candidates: content
            .candidates
            .iter()
            .map(|(identity, candidacy)| {
                (identity.clone(), Standing { name: candidacy.name.clone(), priority: candidacy.priority })
            })
            .collect(),
    };
    // Only strings, numbers and maps of them: nothing that could fail.
    let text = serde_json::to_string(&annotation).unwrap_or_default();
    metadata.annotations.get_or_insert_default().insert(ELECTION_ANNOTATION.to_owned(), text);
    Lease { metadata, spec: Some(spec) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Content {
        let standing = Candidacy { name: "web-0".into(), priority: 3 };
        Content {
            holder: Some("web-0_uid_1".into()),
            epoch: Some(71),
            renewal: 9,
            ttl: Some(Duration::from_secs(10)),
            successor: None,
            candidates: [("web-0_uid_1".to_owned(), standing)].into(),
        }
    }

    #[test]
    fn a_record_reads_back_what_was_built() {
        let lease = build(None, "shop", "web", &content());
        assert_eq!(record(&lease).content, content());
        assert_eq!(record(&lease).holder_name(), Some("web-0"));
        let spec = lease.spec.unwrap();
        assert_eq!((spec.lease_duration_seconds, spec.lease_transitions), (Some(10), Some(1)));
        let odd = Content { ttl: Some(Duration::from_millis(2500)), ..content() };
        assert_eq!(record(&build(None, "shop", "web", &odd)).content.ttl, Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_release_keeps_the_epoch_and_an_entry_is_no_renewal() {
        let held = build(None, "shop", "web", &content());
        let mut entered = content();
        entered.candidates.insert("web-1_uid_2".into(), Candidacy { name: "web-1".into(), priority: 1 });
        let entered = build(Some(&held), "shop", "web", &entered);
        let time = |lease: &Lease| lease.spec.clone().unwrap().renew_time.unwrap().0;
        assert_eq!(time(&entered), time(&held));
        let released = Content { holder: None, renewal: 10, ..content() };
        let released = build(Some(&entered), "shop", "web", &released);
        assert_eq!((record(&released).content.epoch, record(&released).content.holder), (Some(71), None));
    }

    #[test]
    fn what_another_program_writes_is_seen() {
        let mut lease = build(None, "shop", "web", &content());
        let before = record(&lease).content;
        let spec = lease.spec.as_mut().unwrap();
        spec.holder_identity = Some("client-go_0123".into());
        spec.renew_time = Some(MicroTime(Timestamp::from_microsecond(1_000_001).unwrap()));
        let after = record(&lease);
        assert_eq!((after.content.renewal, after.content.epoch), (1_000_001, before.epoch));
        assert_eq!(after.holder_name(), Some("client-go"));
        lease.metadata.annotations.as_mut().unwrap().insert(ELECTION_ANNOTATION.into(), "{broken".into());
        assert_eq!(record(&lease).content.epoch, None);
    }
}
