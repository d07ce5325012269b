//! What was told already, to people and to the log, so that each thing is told once.

use ha::Decision;

use super::lane;
use super::tell::Tell;
use crate::http::Findings;

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Told {
    refused: Option<String>,
    findings: Findings,
    decided: Option<(Vec<&'static str>, String)>,
}

impl Told {
    /// Parameters that PostgreSQL does not take are an Event when that comes or changes.
    pub(super) fn refused(&mut self, tell: &Tell, cluster_uid: &str, why: Option<&String>) {
        if self.refused.as_ref() != why {
            if let Some(why) = why {
                tell.parameters_refused(cluster_uid, why);
            }
            self.refused = why.cloned();
        }
    }

    /// Each kind of finding is an Event when it comes or changes.
    pub(super) fn findings(&mut self, tell: &Tell, cluster_uid: &str, found: Findings) {
        let lowered = found.lowered_durability.join("; ");
        if found.lowered_durability != self.findings.lowered_durability && !lowered.is_empty() {
            tell.found(cluster_uid, "DurabilityLowered", &lowered);
        }
        let foreign = found.foreign_settings.join("; ");
        if found.foreign_settings != self.findings.foreign_settings && !foreign.is_empty() {
            tell.found(cluster_uid, "SettingsChanged", &foreign);
        }
        for kept in found.diverged_wal.iter().filter(|kept| !self.findings.diverged_wal.contains(kept)) {
            let what = format!("{} bytes of diverged WAL are kept in {}", kept.bytes, kept.path);
            tell.found(cluster_uid, "DivergedWalKept", &what);
        }
        self.findings = found;
    }

    /// A decision is logged when its actions or the kinds of its reasons differ from the last one's.
    pub(super) fn decided(&mut self, decision: &Decision) {
        let actions: Vec<_> = decision.actions.iter().map(lane::name).collect();
        let kinds: Vec<String> = decision
            .because
            .iter()
            .filter_map(|reason| {
                serde_json::to_value(reason).ok()?.get("reason")?.as_str().map(str::to_owned)
            })
            .collect();
        let said = (actions, kinds.join(" "));
        if self.decided.as_ref() != Some(&said) {
            let because = serde_json::to_string(&decision.because).unwrap_or_default();
            tracing::info!(actions = ?said.0, because, "decided");
            self.decided = Some(said);
        }
    }
}
