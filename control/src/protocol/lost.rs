//! What a subscription is not told of, because nobody waits for a client.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Flows or packets that a client is not told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lost {
    /// Wanted, but the client did not take what was sent before.
    pub client: u64,
    /// Beyond what the daemon took from its workers in time: nobody knows whether they were wanted.
    pub daemon: u64,
}

impl Lost {
    /// Whether nothing is lost.
    pub fn is_nothing(&self) -> bool {
        *self == Lost::default()
    }
}

impl AddAssign for Lost {
    fn add_assign(&mut self, more: Lost) {
        self.client += more.client;
        self.daemon += more.daemon;
    }
}
