//! Rules that the simulator switches off, one at a time: each must be missed by an invariant.

/// All in force by default; nothing but a simulator switches any off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::struct_excessive_bools, reason = "a list of switches, one per rule, each named")]
pub struct Rules {
    /// The deadline counts from before the request, not from its answer.
    pub from_request: bool,
    /// The holder stops by itself at its deadline, not when it is told of another.
    pub own_deadline: bool,
    /// A follower waits for the TTL of the record, not for its own.
    pub record_ttl: bool,
    /// A 409 is re-read; it is not taken for one's own earlier success.
    pub conflict_is_no_success: bool,
    /// A 409 is re-read; it is not taken for the loss of the leadership.
    pub conflict_is_no_loss: bool,
    /// A request without an answer prolongs nothing.
    pub unknown_prolongs_nothing: bool,
    /// A missing Lease is waited for as a silent holder is.
    pub missing_is_unknown: bool,
    /// A Lease that nobody ever held is waited for too: it may stand in for one that was deleted.
    pub never_held_is_unknown: bool,
    /// A holder stops acting before it asks for the release.
    pub stop_before_release: bool,
    /// A taker raises the epoch above the record's.
    pub epoch_grows: bool,
    /// A new Lease's epochs begin above its `resourceVersion`, and so above those of every deleted one.
    pub epoch_from_version: bool,
    /// A holder that comes back after its deadline, unreplaced, begins a new term with its own epoch.
    pub new_term_new_epoch: bool,
    /// The timer of a silent holder is armed when its renewal is observed, and by each renewal anew.
    pub timer_from_renewal: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            from_request: true,
            own_deadline: true,
            record_ttl: true,
            conflict_is_no_success: true,
            conflict_is_no_loss: true,
            unknown_prolongs_nothing: true,
            missing_is_unknown: true,
            never_held_is_unknown: true,
            stop_before_release: true,
            epoch_grows: true,
            epoch_from_version: true,
            new_term_new_epoch: true,
            timer_from_renewal: true,
        }
    }
}
