//! `metrics`: Prometheus' text, as the daemon has it.

use crate::cli::flags::Flag;
use crate::cli::session::{Session, VerbError};
use crate::protocol::MetricsReply;

/// Flags of `metrics`.
pub const FLAGS: &[Flag] = &[];

/// Runs `metrics`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let mut client = session.connect()?;
    let reply: MetricsReply = client.call("metrics", serde_json::json!({}))?;
    print!("{}", reply.text);
    Ok(())
}
