//! Who may do what, over both transports: every method for every kind of caller, and every way out of a scope.

mod auditor;
mod escalation;
mod matrix;
mod rates;
mod reports;
