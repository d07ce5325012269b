//! Feeds the decision log of an agent to the same `decide`: the same views must give the same decisions.

/// Replays a log of JSON lines ([`ha::log::Line`]); what was compared, for people.
///
/// # Errors
/// On a line that does not parse, and at the first decision that differs.
pub fn replay(text: &str) -> anyhow::Result<String> {
    let _ = text;
    anyhow::bail!("not built yet")
}
