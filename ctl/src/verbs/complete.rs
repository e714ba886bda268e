//! What the shells' scripts ask for at every Tab: the words that may stand where the cursor is. Commands and options come from the
//! definition of the command line; names and labels from the controller, within a moment or not at all. It never fails and never
//! says why: there is a half-written command line on the screen.

mod live;

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::{Arg, Args, Command};

use crate::{app::Session, habits, output::text, problem::Problem};
use live::Kind;

/// The words of a command line up to the cursor, the last of them perhaps empty
#[derive(Debug, Args)]
pub struct CompleteArgs {
    #[arg(value_name = "WORD", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// What may stand at the cursor.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// With what they are, for shells that show it.
    Words(Vec<(String, String)>),
    Names(Kind),
    /// Files, which the shell knows itself.
    Files,
}

/// What of the words says which controller to ask.
#[derive(Debug, Default)]
struct Chosen {
    config: Option<PathBuf>,
    context: Option<String>,
    api_key_file: Option<PathBuf>,
}

/// A line for each: the word, and behind a tab what it is. ":files" alone: file names.
pub async fn run(args: CompleteArgs, mut command: Command, session: &mut Session) -> Result<(), Problem> {
    command.build();
    let mut words = args.words;
    let current = words.pop().unwrap_or_default();
    let Some(current) = current.to_str() else { return Ok(()) };
    let line = line_before(words, current, &command);
    let found = match wanted(&line[1..], current, &command) {
        Wanted::Files => vec![":files".to_owned()],
        Wanted::Words(words) => words
            .into_iter()
            .filter(|(word, _)| word.starts_with(current))
            .map(|(word, help)| format!("{word}\t{help}"))
            .collect(),
        Wanted::Names(kind) => {
            let names = live::names(kind, current, &chosen(&line), session).await;
            let names: BTreeSet<String> = names.into_iter().filter(|name| name.starts_with(current)).collect();
            names.into_iter().collect()
        }
    };
    let lines: String = found.iter().map(|line| line_of(line)).collect();
    session.printer.terminal.out.write(&lines)?;
    Ok(())
}

/// What stands before the cursor, in the order of words of this program. A name that is being typed is one already.
fn line_before(words: Vec<OsString>, current: &str, command: &Command) -> Vec<OsString> {
    let mut line = vec![OsString::from("musterctl")];
    line.extend(words);
    line.push(match current {
        "" => "name".into(),
        current => current.into(),
    });
    let mut line = habits::meant(line, command).arguments;
    line.pop();
    line
}

/// Names that a shell's script could not tell apart, or a terminal would act on, are left out.
fn line_of(found: &str) -> String {
    let (word, help) = found.split_once('\t').unwrap_or((found, ""));
    if text::line(word) != word || word.is_empty() {
        return String::new();
    }
    match text::line(help) {
        help if help.is_empty() => format!("{word}\n"),
        help => format!("{word}\t{help}\n"),
    }
}

fn wanted(words: &[OsString], current: &str, root: &Command) -> Wanted {
    let mut command = root;
    let mut path = Vec::new();
    // Of the command that has been reached.
    let mut positional = 0;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(text) = word.to_str() else { continue };
        if text.starts_with('-') && text.len() > 1 {
            if habits::takes_next(OsStr::new(text), root) && words.next().is_none() {
                return value(command, root, &path, text);
            }
        } else if let Some(below) = command.find_subcommand(text) {
            command = below;
            path.push(below.get_name());
            positional = 0;
        } else {
            positional += 1;
        }
    }
    if let Some((option, _)) = current.split_once('=').filter(|(option, _)| option.starts_with("--")) {
        // Shells give the part behind the sign back as a word of its own only if told so; this is rare enough.
        return match value(command, root, &path, option) {
            Wanted::Words(words) => Wanted::Words(
                words
                    .into_iter()
                    .map(|(word, help)| (format!("{option}={word}"), help))
                    .collect(),
            ),
            _ => Wanted::Words(Vec::new()),
        };
    }
    if current.starts_with('-') {
        return Wanted::Words(options(command, root));
    }
    if command.has_subcommands() {
        return Wanted::Words(subcommands(command));
    }
    let mut positionals: Vec<&Arg> = command.get_positionals().collect();
    positionals.sort_by_key(|argument| argument.get_index());
    match positionals.get(positional).or(positionals.last()) {
        Some(argument) => of_argument(argument, &path, positional),
        None => Wanted::Words(options(command, root)),
    }
}

fn subcommands(command: &Command) -> Vec<(String, String)> {
    let shown = command.get_subcommands().filter(|below| !below.is_hide_set());
    let about = |below: &Command| below.get_about().map(ToString::to_string).unwrap_or_default();
    shown.map(|below| (below.get_name().to_owned(), about(below))).collect()
}

fn options(command: &Command, root: &Command) -> Vec<(String, String)> {
    let own = command.get_arguments();
    let global = root.get_arguments().filter(|argument| argument.is_global_set());
    let mut known = BTreeSet::new();
    let mut options = Vec::new();
    for argument in own.chain(global).filter(|argument| !argument.is_hide_set()) {
        let Some(long) = argument.get_long() else { continue };
        if known.insert(long) {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            options.push((format!("--{long}"), help));
        }
    }
    options
}

/// The value of an option.
fn value(command: &Command, root: &Command, path: &[&str], option: &str) -> Wanted {
    let is_named = |argument: &&Arg| match option.strip_prefix("--") {
        Some(long) => argument.get_long() == Some(long),
        None => argument.get_short() == option.chars().nth(1),
    };
    let all = command.get_arguments().chain(root.get_arguments());
    match all.into_iter().find(is_named) {
        Some(argument) => of_argument(argument, path, 0),
        None => Wanted::Words(Vec::new()),
    }
}

fn of_argument(argument: &Arg, path: &[&str], place: usize) -> Wanted {
    let possible = argument.get_possible_values();
    if !possible.is_empty() {
        let word = |value: &clap::builder::PossibleValue| {
            let help = value.get_help().map(ToString::to_string).unwrap_or_default();
            (value.get_name().to_owned(), help)
        };
        return Wanted::Words(possible.iter().map(word).collect());
    }
    let names = argument.get_value_names().unwrap_or_default();
    let name = names.first().map(|name| name.as_str()).unwrap_or_default();
    let noun = path.first().copied().unwrap_or_default();
    match (name, noun) {
        (name, _) if name.starts_with("FILE") || name.starts_with("DIR") => Wanted::Files,
        ("AGENT", _) => Wanted::Names(Kind::Agent),
        // The first is an agent, and then labels.
        ("AGENT|LABEL", _) if place == 0 => Wanted::Names(Kind::Agent),
        ("AGENT|LABEL" | "KEY=VALUE" | "SELECTOR", _) => Wanted::Names(Kind::Label),
        ("POLICY", _) => Wanted::Names(Kind::Policy),
        ("ROLE", _) => Wanted::Names(Kind::Role),
        ("CONTEXT", _) => Wanted::Names(Kind::Context),
        ("PERMISSION", _) => Wanted::Names(Kind::Permission),
        ("NAME", _) if argument.get_long() == Some("context") => Wanted::Names(Kind::Context),
        ("NAME", _) if argument.get_long() == Some("check") => Wanted::Names(Kind::Policy),
        ("NAME", "user") => Wanted::Names(Kind::User),
        ("NAME", "grant") if argument.get_long() == Some("user") => Wanted::Names(Kind::User),
        ("USER", _) => Wanted::Names(Kind::User),
        ("TEMPLATE", _) => Wanted::Names(Kind::TokenTemplate),
        ("ID", "token") => Wanted::Names(Kind::Token),
        ("ID", "apikey") => Wanted::Names(Kind::ApiKey),
        _ => Wanted::Words(Vec::new()),
    }
}

/// The options of the line that say which controller to ask, as far as they are complete.
fn chosen(line: &[OsString]) -> Chosen {
    let mut chosen = Chosen::default();
    for (index, word) in line.iter().enumerate() {
        let Some(text) = word.to_str() else { continue };
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (text, line.get(index + 1).cloned()),
        };
        let Some(value) = value else { continue };
        match name {
            "--config" => chosen.config = Some(value.into()),
            "--context" => chosen.context = Some(value.to_string_lossy().into_owned()),
            "--api-key-file" => chosen.api_key_file = Some(value.into()),
            _ => {}
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &str) -> Wanted {
        let mut words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let current = words.pop().unwrap();
        let mut command = crate::cli::command();
        command.build();
        let all = line_before(words, current.to_str().unwrap(), &command);
        wanted(&all[1..], current.to_str().unwrap(), &command)
    }

    fn words(line: &str) -> Vec<String> {
        match at(line) {
            Wanted::Words(words) => words.into_iter().map(|(word, _)| word).collect(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn names_are_completed_where_they_are_meant() {
        for (line, kind) in [
            ("agent get ", Kind::Agent),
            ("agents describe d", Kind::Agent),
            ("describe agent ", Kind::Agent),
            ("agent label ", Kind::Agent),
            ("agent label db-01 ro", Kind::Label),
            ("agent list -l ", Kind::Label),
            ("-o json agent list --selector ", Kind::Label),
            ("state list --agent ", Kind::Agent),
            ("state list --check ", Kind::Policy),
            ("policy delete disk ", Kind::Policy),
            ("user get ", Kind::User),
            ("user create alice --role ", Kind::Role),
            ("role get ", Kind::Role),
            ("token revoke ", Kind::Token),
            ("token create --template ", Kind::TokenTemplate),
            ("get tokentemplate ", Kind::TokenTemplate),
            ("apikey get ", Kind::ApiKey),
            ("context use ", Kind::Context),
            ("--context ", Kind::Context),
            ("wait agent ", Kind::Agent),
            ("role create x --permission ", Kind::Permission),
        ] {
            assert_eq!(at(line), Wanted::Names(kind), "{line}");
        }
    }

    #[test]
    fn commands_options_values_and_files_are_known_without_a_controller() {
        assert!(words("").contains(&"agent".to_owned()));
        assert!(!words("").contains(&"__complete".to_owned()));
        assert!(words("agent ").contains(&"list".to_owned()));
        assert!(words("agent list --").contains(&"--selector".to_owned()));
        assert!(words("agent list --").contains(&"--context".to_owned()));
        assert_eq!(words("-o "), ["table", "wide", "json", "jsonl", "yaml", "name"]);
        assert!(words("wait agent x --for ").contains(&"policy-applied".to_owned()));
        assert!(words("--output=").contains(&"--output=jsonl".to_owned()));
        for line in ["apply -f ", "--config ", "agent delete --nodes-from ", "login --ca "] {
            assert_eq!(at(line), Wanted::Files, "{line}");
        }
    }

    #[test]
    fn a_name_that_no_line_can_hold_is_left_out() {
        assert_eq!(line_of("db-01\tthe database"), "db-01\tthe database\n");
        assert_eq!(line_of("web 01"), "web 01\n");
        for name in ["", "a\nb", "a\u{1b}[2J"] {
            assert_eq!(line_of(name), "", "{name:?}");
        }
    }
}
