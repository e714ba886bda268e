//! What fingers are used to from other tools: `get agents`, `describe agent db-01`, `check list`. The words are put into the
//! order of this one before they are read. Which nouns and verbs there are is taken from the definition of the command line.

use std::ffi::{OsStr, OsString};

use clap::Command;

/// The arguments as they are read, and what to tell who typed others.
#[derive(Debug, PartialEq, Eq)]
pub struct Meant {
    pub arguments: Vec<OsString>,
    pub note: Option<String>,
}

/// What people call the policies of kind Check and what these find; which of the two, the verb says.
const CHECK: [&str; 2] = ["check", "checks"];

/// A verb that takes files by itself, and is the verb of a noun that follows it.
const WITH_FILES: &str = "delete";

/// `arguments` begin with the program's name. What is understood as it stands stays as it is.
pub fn meant(arguments: Vec<OsString>, command: &Command) -> Meant {
    match rewritten(&arguments, command) {
        Some((arguments, words)) => Meant {
            arguments,
            note: Some(format!("musterctl: that is `musterctl {words}`")),
        },
        None => Meant { arguments, note: None },
    }
}

fn rewritten(arguments: &[OsString], command: &Command) -> Option<(Vec<OsString>, String)> {
    let words = words(arguments, command);
    let [(first_at, first), (second_at, second), more @ ..] = words.as_slice() else {
        return None;
    };
    // kubectl's "agent/db-01".
    let (second, name) = match second.split_once('/') {
        Some((noun, name)) if is_noun(command, noun) && !name.is_empty() => (noun, Some(name)),
        _ => (*second, None),
    };
    let has_name = name.is_some() || !more.is_empty();
    let (noun, verb) = if is_noun(command, first) {
        let known = command
            .find_subcommand(first)
            .is_some_and(|noun| noun.find_subcommand(second).is_some());
        if known || second == "help" {
            return None;
        }
        (*first, second)
    } else if command
        .find_subcommand(first)
        .is_none_or(|verb| verb.get_name() == WITH_FILES)
        && is_noun(command, second)
    {
        (second, *first)
    } else {
        return None;
    };
    let (above, below) = translated(command, noun, verb, has_name)?;
    let mut arguments = arguments.to_vec();
    arguments[*first_at] = above.into();
    arguments[*second_at] = below.into();
    if let Some(name) = name {
        arguments.insert(second_at + 1, name.into());
    }
    Some((arguments, format!("{above} {below}")))
}

/// The command and its subcommand that a noun and a verb mean.
fn translated<'a>(command: &'a Command, noun: &str, verb: &str, has_name: bool) -> Option<(&'a str, &'a str)> {
    let candidates: &[&str] = match verb {
        "get" if has_name => &["get", "list", "usage"],
        "get" | "list" | "ls" => &["list", "status", "usage", "get"],
        "show" | "describe" if has_name => &["get", "status", "list", "usage"],
        "show" | "describe" => &["list", "status", "usage", "get"],
        "delete" | "rm" | "remove" => &["delete", "revoke"],
        "add" | "new" => &["create"],
        other => &[other],
    };
    let noun = match noun {
        noun if !CHECK.contains(&noun) => noun,
        _ if matches!(candidates[0], "list" | "watch") => "state",
        _ => "policy",
    };
    let noun = command.find_subcommand(noun)?;
    let below = |above: &'a Command, name: &str| above.find_subcommand(name).map(Command::get_name);
    if let Some(below) = candidates.iter().find_map(|verb| below(noun, verb)) {
        return Some((noun.get_name(), below));
    }
    // `agent wait` is `wait agent`.
    let above = command.find_subcommand(verb)?;
    Some((above.get_name(), below(above, noun.get_name())?))
}

fn is_noun(command: &Command, word: &str) -> bool {
    CHECK.contains(&word)
        || command
            .find_subcommand(word)
            .is_some_and(|command| command.has_subcommands() && command.get_name() != "wait")
}

/// The words that are neither options nor their values, with their places.
fn words<'a>(arguments: &'a [OsString], command: &Command) -> Vec<(usize, &'a str)> {
    let mut words = Vec::new();
    let mut arguments = arguments.iter().enumerate().skip(1);
    while let Some((at, argument)) = arguments.next() {
        let Some(text) = argument.to_str() else { continue };
        if text == "--" {
            break;
        }
        if !text.starts_with('-') || text == "-" {
            words.push((at, text));
        } else if takes_next(OsStr::new(text), command) {
            arguments.next();
        }
    }
    words
}

/// Whether the value of an option is the next argument. The same name means the same in all commands, in this as in all else.
pub fn takes_next(option: &OsStr, command: &Command) -> bool {
    let Some(text) = option.to_str() else { return false };
    let is_named = |argument: &clap::Arg| match text.strip_prefix("--") {
        Some(long) => argument.get_long() == Some(long),
        // Of `-ojson` the value is in the argument itself.
        None => text.len() == 2 && argument.get_short() == text.chars().nth(1),
    };
    let takes = |command: &Command| {
        let mut options = command.get_arguments().filter(|argument| is_named(argument));
        options.any(|option| option.get_action().takes_values())
    };
    takes(command) || command.get_subcommands().any(|below| takes_next(option, below))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> (String, Option<String>) {
        let arguments = line.split(' ').map(OsString::from).collect();
        let meant = meant(arguments, &crate::cli::command());
        let words: Vec<&str> = meant.arguments.iter().filter_map(|word| word.to_str()).collect();
        (words.join(" "), meant.note)
    }

    #[test]
    fn other_tools_order_of_words_means_ours() {
        for (typed, run) in [
            ("get agents", "agent list"),
            ("get agent", "agent list"),
            ("get agents db-01", "agent get db-01"),
            ("get agent/db-01", "agent get db-01"),
            ("list agents", "agent list"),
            ("ls agents -l env=prod", "agent list -l env=prod"),
            ("-o json get agents", "-o json agent list"),
            ("get -l env=prod agents", "agent -l env=prod list"),
            ("--context prod get agents db-01", "--context prod agent get db-01"),
            ("describe agent db-01", "agent get db-01"),
            ("show policy disk", "policy get disk"),
            ("delete policy disk", "policy delete disk"),
            ("rm policies disk load", "policy delete disk load"),
            ("delete token 5f1e", "token revoke 5f1e"),
            ("token delete 5f1e", "token revoke 5f1e"),
            ("remove apikey 5f1e", "apikey revoke 5f1e"),
            ("create token --ttl 1h", "token create --ttl 1h"),
            ("label agent db-01 role=db", "agent label db-01 role=db"),
            ("watch states --problems", "state watch --problems"),
            ("get states", "state list"),
            ("state get db-01", "state list db-01"),
            ("get ca", "ca status"),
            ("get controller", "controller get"),
            ("check list --agent web-07", "state list --agent web-07"),
            ("checks ls", "state list"),
            ("get checks", "state list"),
            ("check watch", "state watch"),
            ("check get disk", "policy get disk"),
            ("check delete disk", "policy delete disk"),
            ("describe check disk", "policy get disk"),
            ("delete check disk", "policy delete disk"),
        ] {
            let (words, note) = said(&format!("musterctl {typed}"));
            assert_eq!(words, format!("musterctl {run}"), "{typed}");
            let note = note.unwrap_or_else(|| panic!("{typed}"));
            assert!(note.starts_with("musterctl: that is `musterctl "), "{note}");
        }
    }

    #[test]
    fn what_is_understood_as_it_stands_is_left_alone() {
        for typed in [
            "agent list",
            "agents ls",
            "agent rm db-01",
            "agent show db-01",
            "agent get get",
            "agent label get agents",
            "apply -f agents",
            "delete -f agents",
            "-o get agent list",
            "--context get agent list",
            "whoami",
            "version",
            "help agent",
            "agent help list",
            "get nothing",
            "frobnicate agents",
            "agent frobnicate",
            "-- get agents",
            "get",
            "",
        ] {
            let line = format!("musterctl {typed}");
            assert_eq!(said(&line), (line.clone(), None), "{typed}");
        }
    }
}
