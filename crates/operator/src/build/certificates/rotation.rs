//! Replaces the cluster's authority in two phases, without a restart (K10).
//!
//! Nothing is remembered but what the Secrets hold: the authority's Secret has the current one and, while a rotation goes
//! on, its successor; the leaves' Secrets have the bundle that is published. A member acknowledges by showing, in
//! `status.members[].certificates`, the digest of exactly what is published. Must never sign with an authority that a
//! member does not know, nor forget one whose leaf a member still shows. Proved by `tests` and by `pki`'s.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use pki::{Authority, Bundle, Fingerprint, Observed, Step, acknowledgement, needs_renewal, next_step};

use super::{CertificateError, Existing};
use crate::{build::secrets::text, cluster::ValidatedCluster};

/// Clients cannot acknowledge. Those that mount their Secret have a new one after 60 to 90 s.
pub const CLIENTS_LEARN: SignedDuration = SignedDuration::from_secs(120);

/// The annotation of the authority's Secret: when every member was first seen to trust the newest authority, RFC 3339.
/// Clients' time counts from then. It goes when the old one is no longer trusted.
pub(super) const PUBLISHED_AT: &str = "matriarch.dev/published-at";

/// The annotation of the authority's Secret: the wish that its newest authority was made for.
pub(super) const ROTATED_FOR: &str = "matriarch.dev/rotated-for";

/// Keys of the authority's Secret.
pub(super) const CURRENT: (&str, &str) = ("ca.crt", "ca.key");
/// Its keys for the successor.
pub(super) const NEXT: (&str, &str) = ("next.crt", "next.key");

/// What members say: by name, the digest of what is in force in them.
pub type Acknowledged = BTreeMap<String, Option<String>>;

/// What is going on, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What a rotation waits for; none when none goes on.
    pub waits: Option<String>,
    /// What was done just now, for an Event.
    pub done: Option<String>,
}

/// The authorities as they are to be.
pub(super) struct Authorities {
    /// Signs.
    pub(super) current: Authority,
    /// Will sign.
    pub(super) next: Option<Authority>,
    /// The wish that the newest was made for.
    pub(super) rotated_for: Option<String>,
    /// When every member was first seen to trust the successor.
    pub(super) published_at: Option<Timestamp>,
    /// What members and clients are to trust, PEM.
    pub(super) bundle: Bundle,
    /// Every member trusts the current one, and clients had time to.
    pub(super) trusted: bool,
    /// For people.
    pub(super) told: Told,
}

/// Decides the next step and takes it. `issuer` tells which of some authorities signed a leaf of `existing`.
pub(super) fn rotate(
    cluster: &ValidatedCluster,
    existing: &Existing,
    members: &Acknowledged,
    issuers: &dyn Fn(&BTreeSet<Fingerprint>) -> BTreeSet<Fingerprint>,
    now: Timestamp,
) -> Result<Authorities, CertificateError> {
    let made = |source| CertificateError::Authority(source);
    let stored = existing.authority.as_ref();
    let (current, rotated_for) =
        match stored.map(|secret| read(cluster, secret, CURRENT)).transpose()?.flatten() {
            Some(current) => (current, stored.and_then(|secret| annotation(secret, ROTATED_FOR))),
            None => (Authority::create(&cluster.name, now).map_err(made)?, cluster.rotate_ca.clone()),
        };
    let next = stored.map(|secret| read(cluster, secret, NEXT)).transpose()?.flatten();
    // A Secret that was restored by hand may name the same one twice: there is nothing to go over to.
    let next = next.filter(|next| next.fingerprint() != current.fingerprint());
    let published_at = stored.and_then(|secret| annotation(secret, PUBLISHED_AT));
    // One of the future is a clock's mistake, and would never be over.
    let published_at = published_at.and_then(|at| at.parse::<Timestamp>().ok()).filter(|at| *at <= now);
    let published = published(existing);
    let trusts = published.as_ref().map(Bundle::authorities).unwrap_or_default();
    let silent = silent(existing, members);
    let mut in_use = issuers(&trusts);
    if !silent.is_empty() {
        in_use.extend(&trusts);
    }
    let asked = cluster.rotate_ca.is_some() && cluster.rotate_ca != rotated_for;
    let step = next_step(&Observed {
        current: current.fingerprint(),
        renewal_due: asked || needs_renewal(current.certificate_pem(), now),
        next: next.as_ref().map(Authority::fingerprint),
        bundle: trusts.clone(),
        members: members
            .keys()
            .map(|name| (name.clone(), (!silent.contains(name)).then(|| trusts.clone())))
            .collect(),
        in_use,
    });
    let trusted = silent.is_empty() && trusts.contains(&current.fingerprint());
    let mut all = match &published {
        Some(published) => published.with(current.certificate_pem()),
        None => Bundle::from_pem(current.certificate_pem()),
    }
    .map_err(CertificateError::Bundle)?;
    if let Some(next) = &next {
        all = all.with(next.certificate_pem()).map_err(CertificateError::Bundle)?;
    }
    let before = published.unwrap_or_else(|| all.clone());
    let mut to_be = Authorities {
        current,
        next,
        rotated_for,
        published_at,
        bundle: before,
        trusted,
        told: Told::default(),
    };
    let waits = |text: String| Told { waits: Some(text), done: None };
    let listed = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    match step {
        Step::Steady => to_be.published_at = None,
        Step::MakeNext => {
            to_be.next = Some(Authority::create(&cluster.name, now).map_err(made)?);
            to_be.published_at = None;
            to_be.rotated_for = cluster.rotate_ca.clone().or(to_be.rotated_for);
            to_be.told = Told {
                waits: Some("a new certificate authority was made".to_owned()),
                done: Some(
                    "a new certificate authority was made and is published beside the old one".to_owned(),
                ),
            };
        }
        Step::Publish(wanted) => {
            to_be.published_at = None;
            let retired = wanted.len() < trusts.len();
            to_be.bundle = all.only(&wanted).map_err(CertificateError::Bundle)?;
            if retired {
                to_be.told.done = Some("the old certificate authority is no longer trusted".to_owned());
            } else if !trusts.is_empty() {
                to_be.told = waits("a new certificate authority is being published".to_owned());
            }
        }
        Step::AwaitMembers(missing) => {
            to_be.told = waits(format!(
                "a new certificate authority is published; waiting until {} trusts it",
                listed(&missing)
            ));
        }
        Step::SignWithNext(_) => sign_with_next(cluster, &mut to_be, now),
        // Also where an authority that was lost is replaced: its leaves serve until clients know the new one.
        Step::AwaitLeaves(_) if silent.is_empty() => {
            let learn = clients_learn(cluster, &mut to_be, now);
            to_be.trusted = learn.is_none();
            to_be.told =
                waits(learn.unwrap_or_else(|| "certificates of the new authority are being made".to_owned()));
        }
        Step::AwaitLeaves(_) => {
            to_be.told = waits(format!(
                "certificates of the new authority are published; waiting until {} uses them",
                listed(&silent)
            ));
        }
    }
    Ok(to_be)
}

/// Clients are given time to read the bundle before the first leaf of the new authority is shown to them.
fn sign_with_next(cluster: &ValidatedCluster, to_be: &mut Authorities, now: Timestamp) {
    to_be.told.waits = clients_learn(cluster, to_be, now);
    if to_be.told.waits.is_some() {
        return;
    }
    let Some(next) = to_be.next.take() else { return };
    to_be.current = next;
    to_be.told = Told {
        waits: Some("certificates of the new authority are being made".to_owned()),
        done: Some("every member trusts the new certificate authority; it signs from now on".to_owned()),
    };
}

/// Until when clients have time, for people; none once it is over. It begins when this is first asked.
fn clients_learn(cluster: &ValidatedCluster, to_be: &mut Authorities, now: Timestamp) -> Option<String> {
    let published_at = *to_be.published_at.get_or_insert(now);
    let from = published_at.saturating_add(CLIENTS_LEARN).unwrap_or(Timestamp::MAX);
    (now < from).then(|| {
        format!(
            "every member trusts the new certificate authority; clients have until {from:.0} to read it from the Secret {}",
            api::names::app_secret(&cluster.name)
        )
    })
}

/// Members that do not show the digest of what is published. Everybody is silent before anything is.
fn silent(existing: &Existing, members: &Acknowledged) -> BTreeSet<String> {
    let expected = expected(existing);
    let said = |said: &Option<String>| said.is_some() && *said == expected;
    members.iter().filter(|(_, shown)| !said(shown)).map(|(name, _)| name.clone()).collect()
}

/// The digest of what is published; none while a Secret is missing.
pub(super) fn expected(existing: &Existing) -> Option<String> {
    let mut pairs = BTreeMap::new();
    for (kind, secret) in existing.leaves() {
        let secret = secret?;
        pairs.insert(kind, (text(secret, "tls.crt")?, text(secret, "ca.crt")?));
    }
    let pairs =
        pairs.iter().map(|(kind, (certificate, bundle))| (*kind, (&**certificate, &**bundle))).collect();
    acknowledgement(&pairs)
}

/// What *every* leaf's Secret trusts: a write that was not made yet is not published.
fn published(existing: &Existing) -> Option<Bundle> {
    let bundles = existing.leaves().into_iter().filter_map(|(_, secret)| {
        let bundle = text(secret?, "ca.crt")?;
        Bundle::from_pem(&bundle).ok()
    });
    let bundles: Vec<Bundle> = bundles.collect();
    let (first, others) = bundles.split_first()?;
    let common = others.iter().fold(first.authorities(), |common, bundle| &common & &bundle.authorities());
    first.only(&common).ok()
}

fn annotation(secret: &Secret, name: &str) -> Option<String> {
    secret.metadata.annotations.as_ref()?.get(name).cloned()
}

/// An authority of the Secret, when it is there. A damaged one is for people: another would lock every member out.
fn read(
    cluster: &ValidatedCluster,
    secret: &Secret,
    (certificate, key): (&str, &str),
) -> Result<Option<Authority>, CertificateError> {
    let Some((certificate, key)) = text(secret, certificate).zip(text(secret, key)) else { return Ok(None) };
    let damaged = |source| CertificateError::Damaged { secret: api::names::ca_secret(&cluster.name), source };
    Authority::from_pem(&certificate, &key).map(Some).map_err(damaged)
}
