//! The exit codes of musterctl, one name each. Scripts rely on them; which error gives which is said in `problem`.

use std::process::ExitCode;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Success = 0,
    Failure = 1,
    /// The command line, or what it was given to work with, is wrong.
    Usage = 2,
    /// The controller cannot be reached, or no connection that both sides trust can be made.
    Unreachable = 3,
    Denied = 4,
    NotFound = 5,
    DeadlinePassed = 6,
    /// What was planned would change something, and that was asked.
    Changes = 7,
    Conflict = 8,
    /// The audit log is not the one that was written.
    Altered = 9,
    /// Of several agents some were not changed.
    SomeFailed = 10,
    Interrupted = 130,
}

impl Exit {
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
