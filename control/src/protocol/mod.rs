//! What the control socket speaks: newline-delimited JSON-RPC 2.0
//! (<https://www.jsonrpc.org/specification>).
//!
//! One JSON value a line, both ways. Requests are pipelined: replies come in the requests' order,
//! notifications of a client's watches in between. Batches (arrays) are not taken.
//!
//! | method | params | result |
//! | --- | --- | --- |
//! | `apply` `create` `replace` | [`ApplyParams`] | [`Mutation`] |
//! | `patch` | [`PatchParams`] | [`Mutation`] |
//! | `delete` | [`DeleteParams`] | [`Mutation`] |
//! | `updateStatus` | [`UpdateStatusParams`] | [`Mutation`] |
//! | `get` | [`GetParams`] | [`GetReply`] |
//! | `resources` | `{}` | [`ResourcesReply`] |
//! | `watch` | [`WatchParams`] | [`WatchReply`], then [`WatchEvent`] notifications |
//! | `unwatch` | [`WatchReply`] | `{}` |
//! | `endpoint.add` | [`EndpointAddParams`] | [`EndpointAdded`] |
//! | `endpoint.remove` | [`EndpointRemoveParams`] | [`Mutation`] without results |
//! | `status` | `{}` | [`Status`] |
//! | `trace` | [`TraceParams`] | [`Explained`] |
//! | `matrix` | [`MatrixParams`] | [`Explained`] |
//! | `counters` | `{}` | [`CountersReply`] |
//! | `conntrack.list` | [`ConntrackListParams`] | [`ConntrackListReply`] |
//! | `conntrack.flush` | [`ConntrackFlushParams`] | [`ConntrackFlushReply`] |
//! | `log.follow` | `{}` | [`WatchReply`], then [`LogLine`] notifications |
//! | `observe` | [`ObserveParams`] | [`ObserveReply`], then [`ObserveEvent`] notifications |
//! | `metrics` | `{}` | [`MetricsReply`] |
//! | `hits` | [`HitsParams`] | [`HitsReply`] |
//! | `load` | `{}` | [`Load`] |
//! | `capture` | [`CaptureParams`] | [`CaptureReply`], then [`CaptureEvent`]s |
//! | `capture.stop` | [`CaptureStopParams`] | [`CaptureSummary`] |
//! | `pod.policies` | [`PodPoliciesParams`] | [`PodPoliciesReply`] |

mod capture;
mod conntrack;
mod endpoint;
mod hits;
mod load;
mod lost;
mod message;
mod objects;
mod observe;
mod preview;
mod questions;
mod status;
mod watch;

pub use capture::*;
pub use conntrack::*;
pub use endpoint::*;
pub use hits::*;
pub use load::*;
pub use lost::*;
pub use message::*;
pub use objects::*;
pub use observe::*;
pub use preview::*;
pub use questions::*;
pub use status::*;
pub use watch::*;
