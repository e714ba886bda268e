//! `server.yaml` of the backup for another place: the lines that say where things are change, all others stay as their owner
//! wrote them.

use std::path::Path;

use crate::config::Database;

/// `url_file` is where the URL of the database was put when it holds a password.
pub fn moved(text: &str, data_dir: &Path, database: &Database, url_file: Option<&Path>) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let place = format!("data_dir: {}", quoted(&data_dir.display().to_string()));
    let database = match (database, url_file) {
        (Database::Sqlite, _) => "database: sqlite".to_owned(),
        (Database::Postgres(_), Some(file)) => format!("database_url_file: {}", quoted(&file.display().to_string())),
        (Database::Postgres(url), None) => format!("database: {}", quoted(url.expose())),
    };
    let is = |line: &str, key: &str| {
        line.strip_prefix(key)
            .is_some_and(|rest| rest.trim_start().starts_with(':'))
    };
    let mut lines = Vec::new();
    let mut said = false;
    for line in text.lines() {
        if is(line, "data_dir") {
            lines.push(place.as_str());
        } else if !(is(line, "database") || is(line, "database_url_file")) {
            lines.push(line);
        } else if !std::mem::replace(&mut said, true) {
            lines.push(database.as_str());
        }
    }
    if !said {
        lines.push(database.as_str());
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, DatabaseUrl};

    const TEXT: &str = "# ours\nname: c1\ntrust_domain: example.muster\ndata_dir: /old # here\nlink: { heartbeat: 5s }\n\
                        database_url_file: /old/url\n# database: sqlite\n";

    fn config(text: &str) -> Config {
        Config::parse("server.yaml", text).unwrap()
    }

    #[test]
    fn only_the_places_change() {
        let text = moved(TEXT, Path::new("/new"), &Database::Sqlite, None);
        assert!(
            text.starts_with("# ours\n") && text.ends_with("# database: sqlite\n"),
            "{text}"
        );
        let config = config(&text);
        assert_eq!(config.data_dir, Path::new("/new"));
        assert_eq!(config.database, Database::Sqlite);
        assert_eq!(config.link.heartbeat.as_secs(), 5);
    }

    #[test]
    fn a_database_is_written_where_none_was_named() {
        let text = "name: c1\ntrust_domain: example.muster\ndata_dir: /old\n";
        let url = Database::Postgres(DatabaseUrl::parse("postgres://muster@db/fleet").unwrap());
        assert_eq!(config(&moved(text, Path::new("/new"), &url, None)).database, url);
    }

    #[test]
    fn a_url_with_a_password_is_named_by_its_file() {
        let url = Database::Postgres(DatabaseUrl::parse("postgres://muster:geheim@db/fleet").unwrap());
        let text = moved(TEXT, Path::new("/new"), &url, Some(Path::new("/new/url")));
        assert!(
            text.contains("database_url_file: \"/new/url\"") && !text.contains("geheim"),
            "{text}"
        );
    }
}
