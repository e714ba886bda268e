//! Who is calling and what they may do. One table names every method; what is not in it is refused.

mod caller;
mod decide;
pub mod labels;
mod layer;
mod note;
pub mod permission;
pub mod rates;
mod refusals;
pub mod rights;
pub mod scope;
mod table;

pub use caller::{Caller, Distrust, OpCtx, Operator, Renewer};
pub use layer::{Access, Guard, plain, plain_as};
pub use note::Note;
pub use table::{Audit, Listener, METHODS, Method, Rate, Rest, Who};
