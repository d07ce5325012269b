//! Slots and roles of members that are gone.

use std::collections::BTreeSet;

use crate::common::{Member, run};
use ha::Incarnation;
use postgres::replication::slots;
use postgres::roles;

#[test]
fn slots_and_roles_of_members_that_are_gone_go_and_nobody_elses() {
    run(module_path!(), "slots_and_roles_of_members_that_are_gone_go_and_nobody_elses", |lab| {
        Box::pin(async move {
            let mut one = Member::primary(&lab, 1).await;
            let two = Member::standby_of(&mut one, 2).await;
            let (kept, gone, owner) = (Incarnation(0x9), Incarnation(0xA), Incarnation(0xB));
            for member in [kept, gone, owner] {
                one.admit(member).await;
            }
            let session = one.session().await;
            let strangers = "\
SELECT pg_create_physical_replication_slot('m_strange')::text,
       pg_create_physical_replication_slot('c_000000000000000a')::text";
            session.rows("slots", strangers, &[]).await.unwrap();
            let theirs = "\
CREATE ROLE app REPLICATION LOGIN; CREATE TABLE public.owned (x int); ALTER TABLE public.owned OWNER TO m_000000000000000b";
            session.batch("roles", theirs).await.unwrap();

            let members = BTreeSet::from([kept]);
            let set = |members: &[Incarnation]| members.iter().copied().collect::<BTreeSet<_>>();
            let outcome = slots::drop_slots_except(&session, &members).await.unwrap();
            assert_eq!(outcome.dropped, set(&[gone, owner]));
            assert_eq!(outcome.in_use, set(&[two.incarnation]), "an active slot stays");
            let outcome = slots::drop_slots_except(&session, &members).await.unwrap();
            assert_eq!((outcome.dropped, outcome.in_use), (set(&[]), set(&[two.incarnation])));
            let names = "SELECT string_agg(slot_name::text, ' ' ORDER BY slot_name::text COLLATE \"C\") FROM pg_replication_slots";
            let left: String = session.value("list", names, &[]).await.unwrap();
            assert_eq!(left, "c_000000000000000a m_0000000000000009 m_0000000000001002 m_strange");

            let outcome = roles::drop_roles_except(&session, &members).await.unwrap();
            assert_eq!(outcome.dropped, set(&[gone]));
            assert_eq!(outcome.in_use, set(&[two.incarnation, owner]), "it streams, and it owns something");
            assert_eq!(roles::member_roles(&session).await.unwrap(), set(&[kept, two.incarnation, owner]));
            let app = "SELECT count(*) FROM pg_roles WHERE rolname = 'app'";
            assert_eq!(session.value::<i64>("count", app, &[]).await.unwrap(), 1);
            // The one in use streams on.
            two.wait_replayed(one.flushed().await).await;
        })
    });
}
