//! Values of which the controller wants the latest only, and only when it holds another.

use std::sync::Arc;

use muster_proto::v1;

#[derive(Debug)]
pub(super) struct Latest<T> {
    pub value: Option<Arc<T>>,
    /// The digest of what the controller holds.
    pub held: String,
}

/// Facts and policy status: what has a digest of its content.
pub(super) trait Digested {
    fn digest(&self) -> &str;
}

impl Digested for v1::Facts {
    fn digest(&self) -> &str {
        &self.digest
    }
}

impl Digested for v1::PolicyStatus {
    fn digest(&self) -> &str {
        &self.digest
    }
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self {
            value: None,
            held: String::new(),
        }
    }
}

impl<T: Digested + Clone> Latest<T> {
    /// The value, if it is to be sent now; it counts as held then.
    pub fn changed(&mut self) -> Option<T> {
        // One without a digest has not been gathered yet.
        let value = self
            .value
            .as_deref()
            .filter(|value| !value.digest().is_empty() && value.digest() != self.held)?;
        self.held = value.digest().to_owned();
        Some(value.clone())
    }
}
