//! K10: a rotation of the authority, with an operator that dies after any write and members that learn late.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use common::{MINIMAL, cluster, validated};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use operator::{
    build::{
        certificates::{self, Certificates, Existing, rotation::Acknowledged},
        secrets::text,
    },
    cluster::ValidatedCluster,
};

/// The authority that a certificate names as its issuer: its subject is unique.
fn issuer(pem: &str) -> String {
    let body: String =
        pem.lines().take_while(|line| !line.contains("END")).filter(|line| !line.contains('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
    let at = der.windows(6).position(|window| window == b"pg CA ").unwrap();
    String::from_utf8(der[at..at + 14].to_vec()).unwrap()
}

fn trusted(bundle: &str) -> BTreeSet<String> {
    let blocks = bundle.split_inclusive("-----END CERTIFICATE-----\n");
    blocks.filter(|block| block.contains("BEGIN")).map(issuer).collect()
}

/// What one member has in force.
#[derive(Clone, Default)]
struct Member(Existing);

impl Member {
    fn take(&mut self, published: &Existing, which: usize) {
        match which {
            0 => self.0.server.clone_from(&published.server),
            1 => self.0.client.clone_from(&published.client),
            _ => self.0.peer.clone_from(&published.peer),
        }
    }

    fn leaves(&self) -> [&Secret; 3] {
        [&self.0.server, &self.0.client, &self.0.peer].map(|secret| secret.as_ref().unwrap())
    }
}

struct World {
    cluster: ValidatedCluster,
    published: Existing,
    members: BTreeMap<String, Member>,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let cluster = validated(&cluster(MINIMAL)).unwrap();
        let names = ["pg-0", "pg-1", "pg-2"].map(|name| (name.to_owned(), Member::default()));
        let mut world = Self { cluster, published: Existing::default(), members: names.into(), now };
        world.pass(4);
        world.learn();
        world.pass(4);
        assert_eq!(world.waits(), None);
        world
    }

    fn said(&self) -> Acknowledged {
        self.members
            .iter()
            .map(|(name, member)| (name.clone(), member.0.expected_acknowledgement()))
            .collect()
    }

    fn next(&self) -> Certificates {
        certificates::build(&self.cluster, &self.published, &self.said(), self.now).unwrap()
    }

    fn waits(&self) -> Option<String> {
        self.next().rotation.waits
    }

    /// One reconciliation that dies after so many writes.
    fn pass(&mut self, writes: usize) {
        let Certificates { authority, server, peer, client, bundle: _, rotation: _ } = self.next();
        let there = [
            &mut self.published.authority,
            &mut self.published.server,
            &mut self.published.peer,
            &mut self.published.client,
        ];
        for (there, wanted) in there.into_iter().zip([authority, server, peer, client]).take(writes) {
            *there = Some(wanted);
        }
    }

    /// Every member takes everything.
    fn learn(&mut self) {
        for member in self.members.values_mut() {
            (0..3).for_each(|which| member.take(&self.published, which));
        }
        self.judge();
    }

    /// Whatever one member shows, every other trusts.
    fn judge(&self) {
        for (shower, shown) in &self.members {
            for (asker, asking) in &self.members {
                for (leaf, trust) in shown.leaves().into_iter().zip(asking.leaves()) {
                    let by = issuer(&text(leaf, "tls.crt").unwrap());
                    assert!(
                        trusted(&text(trust, "ca.crt").unwrap()).contains(&by),
                        "{asker} refuses {shower}: {by}"
                    );
                }
            }
        }
    }

    fn signer(&self) -> String {
        issuer(&text(self.published.authority.as_ref().unwrap(), "ca.crt").unwrap())
    }

    fn published_at(&self) -> Option<String> {
        let annotations = self.published.authority.as_ref()?.metadata.annotations.as_ref()?;
        annotations.get("matriarch.dev/published-at").cloned()
    }

    fn ask(&mut self, wish: &str) {
        self.cluster.rotate_ca = Some(wish.to_owned());
    }
}

#[test]
fn k10_the_phases_of_a_rotation_on_demand() {
    let mut world = World::new();
    let old = world.signer();
    world.ask("now");
    let made = world.next();
    assert!(made.rotation.done.unwrap().contains("was made"));
    assert_eq!(trusted(&made.bundle), [old.clone()].into(), "stored before it is published");
    world.pass(4);
    let published = world.next();
    assert_eq!(trusted(&published.bundle).len(), 2);
    assert_eq!(
        published.server.data.as_ref().unwrap().get("tls.crt"),
        world.published.server.as_ref().unwrap().data.as_ref().unwrap().get("tls.crt")
    );
    world.pass(4);
    world.now += SignedDuration::from_hours(1);
    assert!(world.waits().unwrap().contains("waiting until pg-0, pg-1, pg-2 trusts it"));

    world.learn();
    world.pass(4);
    world.now += SignedDuration::from_hours(1);
    world.pass(4);
    assert_ne!(world.signer(), old);
    assert!(world.waits().unwrap().contains("waiting until pg-0, pg-1, pg-2 uses them"));
    world.pass(4);
    assert_eq!(trusted(&world.next().bundle).len(), 2, "the old leaves are still in use");

    world.learn();
    let last = world.next();
    assert!(last.rotation.done.unwrap().contains("no longer trusted"));
    assert_eq!(trusted(&last.bundle), [world.signer()].into());
    world.pass(4);
    world.learn();
    assert_eq!(world.waits(), None);
    let settled = world.next();
    assert!(!settled.authority.data.unwrap().contains_key("next.key"));
    world.pass(4);
    assert_eq!(
        world.next().server,
        world.published.server.clone().unwrap(),
        "the same wish again changes nothing"
    );
}

#[test]
fn k10_a_member_that_never_acknowledges_stops_it_and_is_named() {
    let mut world = World::new();
    let old = world.signer();
    let silent = world.members["pg-1"].clone();
    world.ask("now");
    for _ in 0..20 {
        world.pass(4);
        world.now += SignedDuration::from_hours(1);
        world.learn();
        world.members.insert("pg-1".into(), silent.clone());
        world.judge();
    }
    assert_eq!(world.signer(), old);
    assert!(world.waits().unwrap().contains("waiting until pg-1 trusts it"));
    assert_eq!(issuer(&text(world.published.server.as_ref().unwrap(), "tls.crt").unwrap()), old);
}

#[test]
fn k10_clients_have_time_to_read_the_new_authority() {
    let mut world = World::new();
    let old = world.signer();
    world.ask("now");
    world.pass(4);
    world.pass(4);
    // Their time begins when the authority is published everywhere, not when it was made.
    world.now += SignedDuration::from_hours(1);
    world.learn();
    assert_eq!(world.published_at(), None);
    world.pass(4);
    let from = world.published_at();
    assert_eq!(from.as_deref(), Some("2026-01-01T01:00:00Z"));
    world.now += SignedDuration::from_secs(119);
    assert!(world.waits().unwrap().contains("from the Secret pg-app"));
    world.pass(4);
    assert_eq!((world.signer(), world.published_at()), (old.clone(), from));
    world.now += SignedDuration::from_secs(1);
    world.pass(4);
    assert_ne!(world.signer(), old);
    world.learn();
    world.pass(4);
    assert_eq!(world.published_at(), None, "the next rotation counts anew");
}

#[test]
fn k10_clients_have_time_to_read_the_authority_that_replaces_a_lost_one() {
    let mut world = World::new();
    let old = world.signer();
    world.published.authority = None;
    world.pass(4);
    world.learn();
    world.pass(4);
    let from = world.published_at().unwrap();
    world.learn();
    world.now += SignedDuration::from_secs(119);
    assert!(world.waits().unwrap().contains("from the Secret pg-app"));
    world.pass(4);
    let shown = |world: &World| issuer(&text(world.published.server.as_ref().unwrap(), "tls.crt").unwrap());
    assert_eq!((shown(&world), world.published_at()), (old.clone(), Some(from)));
    assert_eq!(trusted(&world.next().bundle).len(), 2);
    world.now += SignedDuration::from_secs(1);
    world.pass(4);
    assert_ne!(shown(&world), old);
    world.learn();
    world.pass(4);
    world.learn();
    world.pass(4);
    assert_eq!((world.waits(), world.published_at()), (None, None));
}

#[test]
fn k10_a_clock_that_was_ahead_does_not_stop_a_rotation() {
    let mut world = World::new();
    let old = world.signer();
    world.ask("now");
    world.pass(4);
    world.pass(4);
    world.learn();
    world.now += SignedDuration::from_hours(24);
    world.pass(4);
    world.now -= SignedDuration::from_hours(23);
    world.pass(4);
    world.now += SignedDuration::from_secs(120);
    world.pass(4);
    assert_ne!(world.signer(), old);
}

#[test]
fn k10_a_successor_that_is_the_current_one_counts_as_none() {
    let mut world = World::new();
    let old = world.signer();
    let data = world.published.authority.as_mut().unwrap().data.as_mut().unwrap();
    for (of, to) in [("ca.crt", "next.crt"), ("ca.key", "next.key")] {
        let same = data[of].clone();
        data.insert(to.to_owned(), same);
    }
    assert_eq!(world.waits(), None);
    world.pass(4);
    assert!(!world.published.authority.as_ref().unwrap().data.as_ref().unwrap().contains_key("next.key"));
    assert_eq!(world.signer(), old);
}

#[test]
fn k10_it_begins_by_itself_at_two_thirds_of_the_authoritys_life() {
    let mut world = World::new();
    world.now += SignedDuration::from_hours(24 * 365 * 7);
    assert!(world.next().rotation.done.unwrap().contains("was made"));
}

/// Every order of writes, deaths and learning that a small generator finds, with the judge after each.
#[test]
fn k10_no_member_ever_refuses_another_whenever_the_operator_dies_and_members_learn() {
    for seed in 0..10_u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut roll = |sides: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % sides).unwrap()
        };
        let mut world = World::new();
        let old = world.signer();
        world.ask("now");
        if roll(4) == 0 {
            world.published.authority = None;
        }
        for _ in 0..60 {
            world.now += SignedDuration::from_secs(30);
            if roll(2) == 0 {
                world.pass(roll(5));
            } else {
                let name = format!("pg-{}", roll(3));
                let published = world.published.clone();
                world.members.get_mut(&name).unwrap().take(&published, roll(3));
            }
            world.judge();
        }
        for _ in 0..14 {
            world.now += SignedDuration::from_secs(60);
            world.pass(4);
            world.learn();
        }
        assert_eq!(world.waits(), None, "seed {seed}");
        assert_ne!(world.signer(), old);
        assert_eq!(trusted(&world.next().bundle), [world.signer()].into(), "seed {seed}");
    }
}
