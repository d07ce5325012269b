//! Where the facts P1–P26 (`docs/protocol.md`) differ between majors, and what was measured on each.
//!
//! Every fact has tests of its number in `tests/servers`, which run on every supported major and ask these functions
//! what to expect, so that a release that changes one is noticed. Only what the code decides by belongs here.
//!
//! | fact | 15 | 17 | 18 |
//! |---|---|---|---|
//! | P15: `ALTER SYSTEM` can be refused to everybody | no: it is noticed and undone | yes | yes |
//! | P22: a promoted source is recognised before its first checkpoint | no: "no rewind required" | yes | yes |
//! | clients that authenticate stand in `pg_stat_activity` | no | no | yes, as `starting` |
//! | all others | same | same | same |

use crate::binaries::Major;

/// P15: `allow_alter_system` exists, so that nobody can write over the rendered file through SQL.
pub fn alter_system_can_be_refused(major: Major) -> bool {
    major >= Major(17)
}

/// P22: `pg_rewind` takes a source's timeline from its last recovery end as well, and not only from its last
/// checkpoint. The protocol waits for the checkpoint on every major: the answer of an older one would be wrong.
pub fn rewind_sees_a_promotion_before_its_checkpoint(major: Major) -> bool {
    major >= Major(16)
}

/// `pg_stat_activity` lists clients that are still authenticating.
pub fn lists_authenticating_clients(major: Major) -> bool {
    major >= Major(18)
}
