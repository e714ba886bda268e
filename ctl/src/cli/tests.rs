//! Help texts as users read them, and what the command line takes.

use clap::FromArgMatches as _;

use super::*;

fn parse<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&command().try_get_matches_from(arguments)?)
}

fn walk(command: &mut clap::Command, path: &str, visit: &mut dyn FnMut(&str, String)) {
    let help = command.clone().bin_name(path).term_width(100).render_help().to_string();
    visit(path, help);
    for sub in command.get_subcommands_mut() {
        let path = format!("{path} {}", sub.get_name());
        walk(sub, &path, visit);
    }
}

fn helps() -> Vec<(String, String)> {
    let mut command = command();
    command.build();
    let mut helps = Vec::new();
    walk(&mut command, "musterctl", &mut |path, help| {
        if !path.contains(" help") && !path.contains(" __") {
            helps.push((path.to_owned(), help));
        }
    });
    helps
}

#[test]
fn the_help_of_every_command() {
    for (path, help) in helps() {
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(format!("help_{}", path.replace(' ', "_")), help);
        });
    }
}

#[test]
fn every_command_that_does_something_has_examples() {
    for (path, help) in helps() {
        let does_something = !help.contains("Commands:") && path != "musterctl version";
        assert!(!does_something || help.contains("Examples:"), "{path}:\n{help}");
    }
}

#[test]
fn the_definition_of_the_command_line_is_sound() {
    command().debug_assert();
}

#[test]
fn singular_and_plural_are_the_same() {
    for noun in [
        "agent",
        "agents",
        "state",
        "states",
        "policy",
        "policies",
        "user",
        "users",
        "role",
        "roles",
        "grant",
        "grants",
        "apikey",
        "apikeys",
        "tokentemplate",
        "tokentemplates",
    ] {
        assert!(parse(["musterctl", noun, "list"]).is_ok(), "{noun}");
    }
    for noun in ["metric", "metrics"] {
        assert!(parse(["musterctl", noun, "query", "node_load1"]).is_ok(), "{noun}");
    }
    for noun in ["token", "tokens"] {
        assert!(parse(["musterctl", noun, "create"]).is_ok(), "{noun}");
    }
}

#[test]
fn a_role_is_given_to_a_user_or_to_a_key() {
    for subject in [["--user", "alice"], ["--apikey", "5f1e0c7b8d213a4b"]] {
        let arguments = ["musterctl", "grant", "create", "--role", "viewer"]
            .into_iter()
            .chain(subject);
        assert!(parse(arguments).is_ok(), "{subject:?}");
    }
    for change in [["--permission", "agents.read"], ["--description", "x"]] {
        let arguments = ["musterctl", "role", "update", "deployer"].into_iter().chain(change);
        assert!(parse(arguments).is_ok(), "{change:?}");
    }
}

#[test]
fn options_for_every_command_stand_anywhere() {
    for arguments in [
        ["-o", "json", "agent", "list"],
        ["agent", "-o", "json", "list"],
        ["agent", "list", "-o", "json"],
    ] {
        let cli = parse(["musterctl"].into_iter().chain(arguments)).unwrap();
        assert_eq!(cli.global.output, Output::Json);
    }
}

#[test]
fn what_would_mean_everything_by_accident_is_refused() {
    for arguments in [
        &["agent", "list", "-l", ""][..],
        &["state", "list", "--agent", ""],
        &["apply"],
        &["validate"],
        &["validate", "--schema", "-f", "x"],
        &["apply", "-f", ""],
        &["policy", "delete"],
        &["agent", "label"],
        &["agent", "revoke"],
        &["agent", "delete"],
        &["agent", "delete", "--all", "-l", "env=prod"],
        &["agent", "delete", "--nodes-from", "x", "-l", "env=prod"],
        &["agent", "readmit", "-l", ""],
        &["token", "create", "--uses", "0"],
        &["token", "create", "--ttl", "0s"],
        &["token", "create", "--label", "env"],
        &["token", "create", "--no-reenroll"],
        &[
            "token",
            "create",
            "--template",
            "web",
            "--allow-reenroll",
            "--no-reenroll",
        ],
        &["tokentemplate", "delete"],
        &["agent", "list", "--limit", "0"],
        &["user", "create"],
        &["user", "create", "../admin", "--role", "viewer"],
        &["user", "create", "..", "--role", "viewer"],
        &["user", "create", "alice", "--role", "viewer", "--ttl", "0s"],
        &["user", "create", "alice"],
        &["user", "create", "alice", "--role", ""],
        &["user", "create", "alice", "--role", "viewer", "--scope", ""],
        &["role", "create", "deployer"],
        &["role", "update", "deployer"],
        &["grant", "create", "--role", "viewer"],
        &["grant", "create", "--user", "alice"],
        &[
            "grant",
            "create",
            "--role",
            "viewer",
            "--user",
            "alice",
            "--apikey",
            "5f1e0c7b8d213a4b",
        ],
        &["grant", "create", "--role", "viewer", "--user", "alice", "--scope", ""],
        &["grant", "delete"],
        &["apikey", "create"],
        &["apikey", "create", "--role", "viewer", "--scope", ""],
        &["audit", "list", "--since", "tomorrow"],
        &["audit", "list", "--method", "RevokAgent"],
        &["agent", "list", "--timeout", "5"],
    ] {
        let parsed = parse(["musterctl"].iter().chain(arguments).copied());
        assert!(parsed.is_err(), "{arguments:?}");
    }
}
