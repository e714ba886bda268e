//! Lines for a controller's `server.yaml` that make identity age in seconds. Text for [`crate::Controller::start_with`];
//! what it leaves out stays as `init` wrote it.

use std::fmt;

#[derive(Debug, Clone, Default)]
pub struct ServerYaml {
    certificates: Vec<String>,
    heartbeat: Option<String>,
    on_clone: Option<String>,
    more: Vec<String>,
}

impl ServerYaml {
    pub fn new() -> Self {
        Self::default()
    }

    /// How long certificates of agents are good for: `20s`.
    pub fn agent_certificates(mut self, life: &str) -> Self {
        self.certificates.push(format!("agent: {life}"));
        self
    }

    pub fn user_certificates(mut self, life: &str) -> Self {
        self.certificates.push(format!("user: {life}"));
        self
    }

    pub fn controller_certificates(mut self, life: &str) -> Self {
        self.certificates.push(format!("controller: {life}"));
        self
    }

    /// How long after its end a certificate is good for a renewal.
    pub fn grace(mut self, grace: &str) -> Self {
        self.certificates.push(format!("grace: {grace}"));
        self
    }

    pub fn heartbeat(mut self, interval: &str) -> Self {
        self.heartbeat = Some(interval.to_owned());
        self
    }

    /// `refuse` or `fork`.
    pub fn on_clone(mut self, answer: &str) -> Self {
        self.on_clone = Some(answer.to_owned());
        self
    }

    /// Any other line.
    pub fn line(mut self, line: &str) -> Self {
        self.more.push(line.to_owned());
        self
    }
}

impl fmt::Display for ServerYaml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.certificates.is_empty() {
            writeln!(f, "certificates: {{ {} }}", self.certificates.join(", "))?;
        }
        if let Some(heartbeat) = &self.heartbeat {
            writeln!(f, "link: {{ heartbeat: {heartbeat} }}")?;
        }
        if let Some(on_clone) = &self.on_clone {
            writeln!(f, "enrollment: {{ on_clone: {on_clone} }}")?;
        }
        self.more.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_in_the_text() {
        assert_eq!(ServerYaml::new().to_string(), "");
        let text = ServerYaml::new()
            .agent_certificates("20s")
            .grace("1h")
            .heartbeat("1s")
            .on_clone("fork");
        assert_eq!(
            text.to_string(),
            "certificates: { agent: 20s, grace: 1h }\nlink: { heartbeat: 1s }\nenrollment: { on_clone: fork }\n"
        );
    }
}
