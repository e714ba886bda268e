//! What this machine calls itself. No name server is asked: that may take long, and answer for another.

use std::fs;

/// As the kernel has it.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The full name: the host name if it is one, else what /etc/hosts says it is.
pub(super) fn fqdn(host_name: &str) -> Option<String> {
    if host_name.contains('.') {
        return Some(host_name.to_owned());
    }
    from_hosts(&fs::read_to_string("/etc/hosts").ok()?, host_name)
}

/// The first full name on a line that has `host_name`.
fn from_hosts(hosts: &str, host_name: &str) -> Option<String> {
    hosts.lines().find_map(|line| {
        let names: Vec<&str> = line.split('#').next()?.split_ascii_whitespace().skip(1).collect();
        let full = names
            .iter()
            .find(|name| name.split('.').next() == Some(host_name) && name.contains('.'))?;
        Some((*full).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_name_is_found_in_the_hosts_file() {
        let hosts =
            "127.0.0.1 localhost\n# 10.0.0.1 db-01.wrong.example db-01\n127.0.1.1\tdb-01.fra.example.com db-01 # me\n";
        assert_eq!(from_hosts(hosts, "db-01").as_deref(), Some("db-01.fra.example.com"));
        assert_eq!(from_hosts(hosts, "db-02"), None);
        assert_eq!(from_hosts(hosts, "localhost"), None);
    }

    #[test]
    fn a_host_name_that_is_full_is_the_full_name() {
        assert_eq!(fqdn("db-01.example.com").as_deref(), Some("db-01.example.com"));
    }
}
