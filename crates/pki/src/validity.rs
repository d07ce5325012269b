//! When a certificate is valid and when it is replaced.

use crate::authority::BACKDATED;
use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First instant.
    pub not_before: Timestamp,
    /// Last instant.
    pub not_after: Timestamp,
}

impl Validity {
    /// The instant from which the certificate is to be renewed: two thirds of its life.
    pub fn renew_from(&self) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before);
        self.not_before.saturating_add(life / 3 * 2).unwrap_or(self.not_after)
    }
}

/// A certificate's validity could not be read.
#[derive(Debug, Error)]
pub enum ValidityError {
    /// Not PEM.
    #[error("not a PEM block")]
    Pem(#[source] x509_parser::nom::Err<x509_parser::error::PEMError>),
    /// Not X.509.
    #[error("not an X.509 certificate")]
    Parse(#[source] x509_parser::nom::Err<x509_parser::error::X509Error>),
    /// A date that no calendar has.
    #[error("a date of the certificate is out of range")]
    Date(#[source] jiff::Error),
}

/// Reads the validity of the first certificate in `pem`.
pub fn validity(pem: &str) -> Result<Validity, ValidityError> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(ValidityError::Pem)?;
    let certificate = block.parse_x509().map_err(ValidityError::Parse)?;
    let dates = certificate.validity();
    Ok(Validity {
        not_before: Timestamp::from_second(dates.not_before.timestamp()).map_err(ValidityError::Date)?,
        not_after: Timestamp::from_second(dates.not_after.timestamp()).map_err(ValidityError::Date)?,
    })
}

/// Whether the certificate has lived two thirds of its life at `now`. One that cannot be read is renewed.
pub fn needs_renewal(pem: &str, now: Timestamp) -> bool {
    validity(pem).map_or(true, |validity| now >= validity.renew_from())
}

/// `(not_before, not_after)` in the encoder's own type, at whole seconds.
pub(crate) fn offsets<T>(now: Timestamp, lifetime: SignedDuration) -> (T, T)
where
    T: From<std::time::SystemTime>,
{
    let at = |instant: Timestamp| {
        let whole = Timestamp::from_second(instant.as_second()).unwrap_or(instant);
        T::from(std::time::SystemTime::from(whole))
    };
    let until = now.saturating_add(lifetime).unwrap_or(Timestamp::MAX);
    let from = now.saturating_sub(BACKDATED).unwrap_or(Timestamp::MIN);
    (at(from), at(until))
}
