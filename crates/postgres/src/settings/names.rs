//! The value of `synchronous_standby_names`.
//!
//! Decides how an electorate is written. Must never turn "unknown" or an empty set into an empty value, which releases
//! every waiting commit as acknowledged (P5, I7). Proved by `tests` and `tests/servers/names.rs`.

use ha::Names;

/// The standby that does not exist: a commit that waits for it waits (rule 7a).
pub const NOBODY: &str = "matriarch_nobody";

/// Nobody knows what is in force, so there is nothing to render.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the standby names are unknown")]
pub struct UnknownNames;

/// The value for these names. Empty only for [`Names::Alone`].
pub fn render_names(names: &Names) -> Result<String, UnknownNames> {
    match names {
        Names::Unknown => Err(UnknownNames),
        Names::Alone => Ok(String::new()),
        Names::Quorum { members, acks } if *acks > 0 && !members.is_empty() => {
            let list: Vec<String> =
                members.iter().map(|m| format!("\"{}\"", ha::types::application_name(*m))).collect();
            Ok(format!("ANY {acks} ({})", list.join(", ")))
        }
        // A quorum of nothing is no permission to commit alone.
        Names::Placeholder | Names::Quorum { .. } => Ok(format!("ANY 1 (\"{NOBODY}\")")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha::Incarnation;

    #[test]
    fn i7_only_alone_is_empty() {
        let quorum = |members: &[u64], acks| Names::Quorum {
            members: members.iter().map(|m| Incarnation(*m)).collect(),
            acks,
        };
        assert_eq!(
            render_names(&quorum(&[2, 0xAF], 1)).unwrap(),
            "ANY 1 (\"m_0000000000000002\", \"m_00000000000000af\")"
        );
        assert_eq!(render_names(&Names::Alone).unwrap(), "");
        let nobody = render_names(&Names::Placeholder).unwrap();
        assert_eq!(nobody, "ANY 1 (\"matriarch_nobody\")");
        assert_eq!(render_names(&quorum(&[], 1)).unwrap(), nobody);
        assert_eq!(render_names(&quorum(&[1], 0)).unwrap(), nobody);
        assert_eq!(render_names(&Names::Unknown), Err(UnknownNames));
    }
}
