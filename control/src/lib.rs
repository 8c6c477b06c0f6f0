//! Kubernetes objects in, policy snapshots out.
