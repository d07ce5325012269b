//! What an agent notes of each request to the API server: a count, a step when it changed something, and whether this
//! pod's identity is refused (K11: "my pod object may be gone").
//!
//! Who asks, and how a refused identity is renewed, is [`kubernetes::client`]'s. Proved by the tests below.

use kubernetes::client::{Asked, Observer};
use postgres::steps::{self, Kind};

use crate::http::{Outcome, StatusHandle, Verb};

impl Observer for StatusHandle {
    fn asked(&self, asked: Asked) {
        let outcome = match asked.status {
            Some(200..=299) => Outcome::Ok,
            Some(409) => Outcome::Conflict,
            Some(_) => Outcome::Refused,
            None => Outcome::Unknown,
        };
        let verb = verb(asked.verb);
        self.metrics().requested(verb, kind(asked.resource), outcome);
        let writes = matches!(verb, Verb::Create | Verb::Update | Verb::Patch | Verb::Delete);
        if writes && outcome == Outcome::Ok {
            steps::took(Kind::Api, || format!("{} {}", asked.verb, asked.resource));
        }
    }

    fn refused(&self, refused: bool) {
        self.identity_refused(refused);
    }
}

fn verb(word: &str) -> Verb {
    match word {
        "watch" => Verb::Watch,
        "list" => Verb::List,
        "create" => Verb::Create,
        "update" => Verb::Update,
        "patch" => Verb::Patch,
        "delete" => Verb::Delete,
        _ => Verb::Get,
    }
}

/// The kind, out of those that an agent asks for.
fn kind(resource: &str) -> &'static str {
    match resource {
        "leases" => "Lease",
        "pods" => "Pod",
        "secrets" => "Secret",
        "configmaps" => "ConfigMap",
        "endpointslices" => "EndpointSlice",
        "postgresclusters" => "PostgresCluster",
        "events" => "Event",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k11_requests_are_counted_and_a_refused_identity_is_told() {
        let status = StatusHandle::new();
        let asked = |verb, resource, code| status.asked(Asked { verb, resource, status: code });
        asked("get", "leases", Some(200));
        asked("get", "leases", Some(401));
        asked("update", "leases", Some(409));
        asked("patch", "pods", None);
        let text = status.metrics().text().unwrap();
        for (verb, kind, outcome) in [
            ("Get", "Lease", "Ok"),
            ("Get", "Lease", "Refused"),
            ("Update", "Lease", "Conflict"),
            ("Patch", "Pod", "Unknown"),
        ] {
            let line =
                format!("api_requests_total{{verb=\"{verb}\",kind=\"{kind}\",outcome=\"{outcome}\"}} 1");
            assert!(text.contains(&line), "{line}: {text}");
        }
        status.refused(true);
        assert_eq!(status.document()["podMayBeGone"], true);
        status.refused(false);
        assert_eq!(status.document()["podMayBeGone"], false);
    }
}
