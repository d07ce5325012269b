//! Adapters over the Kubernetes API.
