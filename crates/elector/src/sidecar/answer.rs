//! What is told of the election, from one snapshot: never the leader of one moment with the epoch of another.
//!
//! It must never name a leader whose time is over, nor anything from a view older than the TTL.

use std::time::Duration;

use ha::Instant;
use kubernetes::leader_election::View;
use serde::Serialize;

/// One candidate, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// Its priority.
    pub priority: u32,
    /// Its identity.
    pub identity: String,
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// Who leads; empty when nobody does, or nobody knows.
    pub name: String,
    /// Who answers.
    #[serde(rename = "self")]
    pub me: String,
    /// Whether who answers leads.
    pub is_leader: bool,
    /// The epoch that was seen last: the fencing token.
    pub epoch: Option<u64>,
    /// Milliseconds since this was surely so.
    pub age: Option<u64>,
    /// Milliseconds until the leader's time is over, unless it renews.
    pub expires_in: Option<u64>,
    /// Who stands for election.
    pub candidates: Vec<Standing>,
    /// Whether this is older than the TTL, so that nobody is named.
    pub stale: bool,
    /// What goes wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What `view` tells at `now` to those who ask the candidate `me`; the longer of its own TTL and the record's counts.
pub fn told(view: &View, me: &str, ttl: Duration, now: Instant) -> Told {
    let is_leader = view.leadership.leads_at(now);
    let age = view.age(now);
    // A leader's own deadline is shorter than any view may be old.
    let ttl = view.ttl.unwrap_or_default().max(ttl);
    let stale = !is_leader && age.is_none_or(|age| age > ttl);
    let own = match view.leadership {
        kubernetes::leader_election::Leadership::Leading { until, epoch } if is_leader => {
            Some((until, epoch))
        }
        _ => None,
    };
    let leader = match (&own, &view.holder) {
        (Some(_), _) => Some(me),
        // The record may still name this one, an earlier life of its pod, or another pod with the same name: who is told
        // its own name takes itself for the leader.
        (None, Some((_, name))) if name == me => None,
        _ if stale => None,
        _ => view.leader(now),
    };
    let expires = own.map(|(until, _)| until).or(view.expires.filter(|_| leader.is_some()));
    Told {
        name: leader.unwrap_or_default().to_owned(),
        me: me.to_owned(),
        is_leader,
        epoch: own.map(|(_, epoch)| epoch).or(view.epoch),
        age: age.map(millis),
        expires_in: expires.map(|expires| millis(expires.since(now))),
        candidates: view
            .candidates
            .iter()
            .map(|(identity, candidacy)| Standing {
                name: candidacy.name.clone(),
                priority: candidacy.priority,
                identity: identity.clone(),
            })
            .collect(),
        stale,
        problem: view.problem.as_ref().map(explained),
    }
}

/// A problem in one sentence, with what to do where that is known.
pub fn explained(problem: &kubernetes::leader_election::Problem) -> String {
    use kubernetes::ErrorClass;
    let kubernetes::leader_election::Problem { class, verb, told } = problem;
    match class {
        ErrorClass::Denied => format!(
            "the API server refuses to {verb} the Lease: {told} (the candidate's service account needs get, list, watch and update on this Lease, and create unless it is made beforehand)"
        ),
        ErrorClass::NotFound => format!("the Lease cannot be made: {told}"),
        ErrorClass::Invalid => {
            format!("the API server takes the request to {verb} the Lease for wrong: {told}")
        }
        _ => format!("no answer to {verb} the Lease: {told}"),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Told {
    /// What matters to those who wait for a change.
    pub fn news(&self) -> (&str, Option<u64>, bool) {
        (&self.name, self.epoch, self.is_leader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubernetes::leader_election::Leadership;

    const TTL: Duration = Duration::from_secs(10);

    fn second(n: u64) -> Instant {
        Instant(n * 1_000_000_000)
    }

    fn view(holder: &str) -> View {
        View {
            holder: Some((format!("{holder}_uid_1"), holder.to_owned())),
            epoch: Some(7),
            expires: Some(second(20)),
            confirmed: Some(second(10)),
            ..View::default()
        }
    }

    #[test]
    fn a_leader_whose_time_is_over_is_not_named() {
        let name = |at: u64| told(&view("web-1"), "web-0", TTL, second(at)).name;
        assert_eq!((name(12), name(19), name(20)), ("web-1".into(), "web-1".into(), String::new()));
    }

    #[test]
    fn an_old_view_names_nobody_and_says_so() {
        let long = View { expires: Some(second(500)), ..view("web-1") };
        assert!(!told(&long, "web-0", TTL, second(20)).stale);
        let old = told(&long, "web-0", TTL, second(21));
        assert_eq!((old.stale, old.name.as_str(), old.expires_in), (true, "", None));
        assert!(told(&View::default(), "web-0", TTL, second(1)).stale, "what was never seen");
    }

    #[test]
    fn one_is_leader_by_the_own_deadline_and_not_by_the_record() {
        let leading =
            View { leadership: Leadership::Leading { until: second(18), epoch: 7 }, ..view("web-0") };
        let before = told(&leading, "web-0", TTL, second(17));
        assert_eq!((before.name.as_str(), before.is_leader, before.expires_in), ("web-0", true, Some(1000)));
        let after = told(&leading, "web-0", TTL, second(18));
        assert_eq!((after.name.as_str(), after.is_leader), ("", false), "the record still names it");
    }
}
