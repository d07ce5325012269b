//! Whose PostgreSQL restarts next for parameters that a reload cannot change.
//!
//! Followers first, from the highest ordinal, the master last and in place: a restart takes a second, and a hand-over for
//! it would never end when a parameter must be lowered on the master first (P19). One at a time, all others ready.

use super::Facts;

/// The member that may restart now.
pub fn next(facts: &Facts) -> Option<String> {
    let leader = facts.leader.as_ref()?;
    let waiting =
        |pod: &&String| facts.members.get(*pod).is_some_and(|member| member.pending_restart == Some(true));
    // One that restarts says nothing for a moment, while its pod still counts as ready: unknown is not done.
    if facts.members.values().any(|member| member.pending_restart.is_none()) {
        return None;
    }
    let pod = facts.members.keys().rev().filter(waiting).min_by_key(|pod| *pod == leader)?;
    let others_ready = facts.members.iter().all(|(name, member)| name == pod || member.ready);
    others_ready.then(|| pod.clone())
}

#[cfg(test)]
mod tests {
    use super::super::tests::healthy;
    use super::*;

    #[test]
    fn followers_before_the_master() {
        let mut facts = healthy(3);
        assert_eq!(next(&facts), None);
        facts.members.values_mut().for_each(|member| member.pending_restart = Some(true));
        assert_eq!(next(&facts).as_deref(), Some("pg-2"));
        facts.members.get_mut("pg-2").unwrap().pending_restart = None;
        assert_eq!(next(&facts), None, "pg-2 restarts and its pod is still ready: nobody else is named");
        facts.members.get_mut("pg-2").unwrap().pending_restart = Some(false);
        facts.members.get_mut("pg-2").unwrap().ready = false;
        assert_eq!(next(&facts), None, "pg-2 is still coming up");
        facts.members.get_mut("pg-2").unwrap().ready = true;
        assert_eq!(next(&facts).as_deref(), Some("pg-1"));
        facts.members.get_mut("pg-1").unwrap().pending_restart = Some(false);
        assert_eq!(next(&facts).as_deref(), Some("pg-0"));
    }
}
