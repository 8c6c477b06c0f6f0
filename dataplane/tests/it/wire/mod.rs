//! The parser, the responders and the rewriters against packets that other code encodes.

mod differential;
pub mod exercise;
mod frames;
mod icmp_errors;
mod malformed;
mod neighbours;
mod replies;
mod rewrites;
mod translations;
