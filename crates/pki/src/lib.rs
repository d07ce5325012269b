//! A certificate authority per cluster.
