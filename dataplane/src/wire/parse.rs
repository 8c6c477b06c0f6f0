//! The parser's entry.

use super::{Offload, Packet};
use crate::DropReason;

/// Describes the frame in `bytes`, from its Ethernet header on.
///
/// # Errors
///
/// The reason for which the frame has to be dropped.
pub fn parse(_bytes: &[u8], _offload: Offload) -> Result<Packet, DropReason> {
    Err(DropReason::Internal)
}
