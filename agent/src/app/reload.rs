//! What a changed configuration can change in a running agent, and what it cannot.

use crate::config::Config;

/// The keys that differ and that only a restart puts into effect.
pub fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let changed = [
        ("agent.id_file", old.agent.id_file != new.agent.id_file),
        ("agent.state_dir", old.agent.state_dir != new.agent.state_dir),
        ("agent.name", old.agent.name != new.agent.name),
        ("logging.format", old.logging.format != new.logging.format),
    ];
    changed
        .into_iter()
        .filter(|(_, changed)| *changed)
        .map(|(key, _)| key)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Config {
        Config::parse("agent.yaml", text).unwrap()
    }

    #[test]
    fn only_what_cannot_change_while_running_needs_a_restart() {
        let old = Config::default();
        let new = parse(
            "server: { endpoints: [\"a:1\"] }\nagent: { labels: { a: b } }\nchecks: { max_concurrent: 1 }\n\
             logging: { level: debug }\nallow: { checks: false }\n",
        );
        assert_eq!(needs_restart(&old, &new), [""; 0]);
        let new = parse("agent: { id_file: /a, state_dir: /b, name: c }\nlogging: { format: json }\n");
        assert_eq!(
            needs_restart(&old, &new),
            ["agent.id_file", "agent.state_dir", "agent.name", "logging.format"]
        );
    }
}
