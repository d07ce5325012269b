//! Turns a PostgresCluster into Kubernetes objects.
