//! The priority at which a run and all that it starts works.

use std::fs;

use super::setup;
use crate::error::BenchError;

/// The session's own priority, where the kernel shares cores out by sessions first
/// (`sched_autogroup`) and a process's priority counts only within one.
const SESSION: &str = "/proc/self/autogroup";

/// A raised priority; the session's is as it was when this is dropped.
#[derive(Debug)]
pub struct Priority {
    session: Option<i32>,
}

impl Priority {
    /// Sets the priority of this process, which its children inherit, and of its session.
    pub fn set(nice: i32) -> Result<Priority, BenchError> {
        rustix::process::setpriority_process(None, nice).map_err(setup)?;
        let session = fs::read_to_string(SESSION).ok();
        let session = session.as_deref().and_then(before);
        if session.is_some() {
            fs::write(SESSION, nice.to_string()).map_err(setup)?;
        }
        Ok(Priority { session })
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        if let Some(session) = self.session {
            let _ = fs::write(SESSION, session.to_string());
        }
    }
}

/// The value in `/autogroup-12 nice 3`.
fn before(text: &str) -> Option<i32> {
    text.trim().rsplit_once(" nice ")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::before;

    #[test]
    fn the_session_is_put_back_to_what_the_kernel_said() {
        assert_eq!(before("/autogroup-843 nice -7\n"), Some(-7));
        assert_eq!(before(""), None);
    }
}
