//! The custom resources, names and defaults.
