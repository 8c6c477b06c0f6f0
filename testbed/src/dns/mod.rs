//! The lab's DNS.
