//! Quoting for SQL statements that take no parameters (DDL).
//!
//! Decides how a name or a literal is written. Must never let either end early; proved by `tests`, on a real server by
//! `tests/servers/roles.rs`.

/// Why a text cannot be a PostgreSQL name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// PostgreSQL has no empty names.
    #[error("a name must not be empty")]
    Empty,
    /// It would be cut silently at 63 bytes and then be another name.
    #[error("the name {0:?} has more than 63 bytes")]
    TooLong(String),
    /// A NUL byte ends every text of PostgreSQL.
    #[error("a NUL byte in a name or a text")]
    Nul,
}

/// The longest name in bytes (`NAMEDATALEN` - 1).
pub const NAME_BYTES: usize = 63;

/// A name, always quoted, so that case and reserved words do not matter.
pub fn quote_identifier(name: &str) -> Result<String, IdentifierError> {
    if name.is_empty() {
        return Err(IdentifierError::Empty);
    }
    if name.len() > NAME_BYTES {
        return Err(IdentifierError::TooLong(name.to_owned()));
    }
    if name.contains('\0') {
        return Err(IdentifierError::Nul);
    }
    Ok(format!("\"{}\"", name.replace('"', "\"\"")))
}

/// A text literal that means the same whatever `standard_conforming_strings` says.
pub fn quote_literal(text: &str) -> Result<String, IdentifierError> {
    if text.contains('\0') {
        return Err(IdentifierError::Nul);
    }
    if text.contains('\\') {
        return Ok(format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''")));
    }
    Ok(format!("'{}'", text.replace('\'', "''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_literals_cannot_end_early() {
        assert_eq!(quote_identifier(r#"a"; DROP TABLE t; --"#).unwrap(), r#""a""; DROP TABLE t; --""#);
        assert_eq!(quote_literal("it's").unwrap(), "'it''s'");
        assert_eq!(quote_literal(r"a\'b").unwrap(), r"E'a\\''b'");
        assert_eq!(quote_identifier(""), Err(IdentifierError::Empty));
        assert_eq!(quote_identifier("a\0b"), Err(IdentifierError::Nul));
        assert!(matches!(quote_identifier(&"x".repeat(64)), Err(IdentifierError::TooLong(_))));
    }
}
