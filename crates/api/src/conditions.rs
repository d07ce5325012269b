//! Types and reasons of conditions.
//!
//! Reasons are a bounded set of constants because metrics and alerts use them as labels.

/// The types of the conditions in `status.conditions`.
pub mod types {
    /// True only when a write succeeded in the current epoch.
    pub const READY: &str = "Ready";
    /// True while objects or members are being changed.
    pub const PROGRESSING: &str = "Progressing";
    /// True while fewer members than wanted are healthy.
    pub const DEGRADED: &str = "Degraded";
    /// True while enough members stream for commits and for the next failover.
    pub const QUORUM_AVAILABLE: &str = "QuorumAvailable";
    /// False when the spec asks for something that only code can refuse.
    pub const SPEC_VALID: &str = "SpecValid";
    /// True when a change was stopped at its first member and taken back (K12).
    pub const ROLL_OUT_HALTED: &str = "RollOutHalted";
    /// True when a member runs with parameters that need a restart.
    pub const PENDING_RESTART: &str = "PendingRestart";
    /// True while a member keeps diverged WAL aside that nobody let go yet (§4 step 10).
    pub const DIVERGED_MEMBER: &str = "DivergedMember";
    /// True when every certificate is valid for longer than its renewal window.
    pub const CERTIFICATES_VALID: &str = "CertificatesValid";
}

/// The reasons of conditions and Events.
pub mod reasons {
    /// The master accepts writes in the current epoch.
    pub const WRITABLE: &str = "Writable";
    /// No member is the master.
    pub const NO_MASTER: &str = "NoMaster";
    /// The first master is being made.
    pub const INITIALISING: &str = "Initialising";
    /// The record is gone while volumes exist; only people may decide (K15).
    pub const RECORD_LOST: &str = "RecordLost";
    /// `pgwrite` does not lead to the master of the current epoch yet.
    pub const ROUTE_PENDING: &str = "RoutePending";
    /// Everything is as the spec says.
    pub const SETTLED: &str = "Settled";
    /// Members are being replaced one at a time.
    pub const ROLLING: &str = "Rolling";
    /// Members are being added or removed.
    pub const SCALING: &str = "Scaling";
    /// A member is cloned anew on another node (K14).
    pub const REPLACING: &str = "Replacing";
    /// PostgreSQL restarts for changed parameters.
    pub const RESTARTING: &str = "Restarting";
    /// A member keeps WAL that the master's history lacks.
    pub const DIVERGED_WAL_KEPT: &str = "DivergedWalKept";
    /// No member keeps diverged WAL.
    pub const NOTHING_KEPT: &str = "NothingKept";
    /// `spec.paused` is set.
    pub const PAUSED: &str = "Paused";
    /// All members are healthy.
    pub const ALL_HEALTHY: &str = "AllHealthy";
    /// Some members are not ready or do not stream.
    pub const MEMBERS_MISSING: &str = "MembersMissing";
    /// Enough members stream.
    pub const QUORUM: &str = "Quorum";
    /// Too few members stream.
    pub const NO_QUORUM: &str = "NoQuorum";
    /// The state of the members is not known.
    pub const UNKNOWN: &str = "Unknown";
    /// The spec is accepted.
    pub const ACCEPTED: &str = "Accepted";
    /// The spec is refused; the running cluster stays as it was.
    pub const REFUSED: &str = "Refused";
    /// PostgreSQL refuses parameters; the last good ones stay in force.
    pub const PARAMETERS_REFUSED: &str = "ParametersRefused";
    /// The API server refuses the pod template; the running members stay as they are (K22).
    pub const POD_TEMPLATE_REFUSED: &str = "PodTemplateRefused";
    /// Another owner has an object of the name that is needed.
    pub const NAME_TAKEN: &str = "NameTaken";
    /// The first updated member did not become healthy in time.
    pub const FIRST_MEMBER_UNHEALTHY: &str = "FirstMemberUnhealthy";
    /// A Service of a route had a selector (K1).
    pub const SELECTOR: &str = "SelectorTakenAway";
    /// Kubernetes refused an object.
    pub const OBJECT_REFUSED: &str = "ObjectRefused";
    /// The cluster is being deleted.
    pub const DELETING: &str = "Deleting";
    /// The certificate authority is being replaced; certificates stay valid meanwhile.
    pub const ROTATING: &str = "Rotating";
    /// Certificates are valid.
    pub const VALID: &str = "Valid";
}
