//! Who is calling and what they may do. One table names every method; what is not in it is refused.

mod caller;
mod layer;
mod table;

pub use caller::{Caller, OpCtx, Renewer};
pub use layer::{Access, Guard};
pub use table::{Listener, METHODS, Method, Who};
