//! Members that are gone for good: whose slots and replication roles may be dropped.
//!
//! A slot carries an incarnation and no name, so nobody can tell from a slot alone whose it was. Decides by exclusion:
//! when every member of the specification is known by its incarnation, whatever else there is belongs to nobody who
//! is wanted. Must never leave out a member of any electorate in the record, nor conclude anything while one member
//! that is wanted was never heard: its slot is among the unknown ones. Proved by the tests below.

use std::collections::{BTreeMap, BTreeSet};

use ha::{Incarnation, MemberId, MemberName, Peer, Record};

/// Everybody whose slot and role stay; none when that is not known.
pub(crate) fn present<'a>(
    record: &Record,
    wanted: impl IntoIterator<Item = &'a String>,
    heard: &BTreeMap<MemberName, Peer>,
    own: &MemberId,
) -> Option<BTreeSet<Incarnation>> {
    // A term that is not committed may yet be undone by one of another electorate.
    record.fence_xid?;
    for name in wanted {
        if *name != own.name.0 && !heard.contains_key(&MemberName(name.clone())) {
            return None;
        }
    }
    let mut present: BTreeSet<Incarnation> =
        heard.values().map(|peer| peer.announcement.member.incarnation).collect();
    present.insert(own.incarnation);
    present.extend(record.leader.iter().map(|leader| leader.incarnation));
    for electorate in &record.electorates {
        present.insert(electorate.leader.incarnation);
        present.extend(electorate.members.iter().map(|member| member.incarnation));
    }
    Some(present)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{id, peer, record};
    use super::*;

    use ha::Electorate;

    fn names(ordinals: &[u64]) -> Vec<String> {
        ordinals.iter().map(|n| id(*n).name.0).collect()
    }

    fn committed() -> Record {
        Record { fence_xid: Some(3), ..record(0, 1) }
    }

    #[test]
    fn nothing_is_dropped_while_a_wanted_member_is_unknown() {
        let heard = BTreeMap::from([peer(1, |_| {})]);
        assert_eq!(present(&committed(), &names(&[0, 1, 2]), &heard, &id(0)), None);
        let known = present(&committed(), &names(&[0, 1]), &heard, &id(0)).unwrap();
        assert_eq!(known, [Incarnation(0), Incarnation(1)].into());
        assert_eq!(present(&record(0, 1), &names(&[0, 1]), &heard, &id(0)), None, "not committed");
    }

    #[test]
    fn an_electorate_keeps_its_members_whatever_the_specification_says() {
        let mut record = committed();
        record.electorates = vec![Electorate::new(id(7), [id(8), id(9)].into(), 1)];
        let known = present(&record, &names(&[0]), &BTreeMap::new(), &id(0)).unwrap();
        assert_eq!(known, [0, 7, 8, 9].map(Incarnation).into());
    }

    #[test]
    fn another_volume_of_the_same_name_is_another_member() {
        let heard = BTreeMap::from([peer(1, |said| said.member.incarnation = Incarnation(42))]);
        let known = present(&committed(), &names(&[0, 1]), &heard, &id(0)).unwrap();
        assert!(known.contains(&Incarnation(42)) && !known.contains(&Incarnation(1)));
    }
}
