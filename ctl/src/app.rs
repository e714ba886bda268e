//! One run of the program: arguments and a terminal in, an exit code out. Everything that happens to the process itself
//! is in `main`.

use std::{
    ffi::OsString,
    time::{Duration, SystemTime},
};

use clap::{
    FromArgMatches as _,
    error::{ContextKind, ContextValue, ErrorKind},
};
use serde_json::json;

use crate::{
    cli::{self, Cli, Command, Global},
    client::{Client, Manner, door},
    context::{self, Context},
    count,
    exit::Exit,
    habits,
    output::{Format, Printer, document},
    problem::{Problem, status::Asked},
    resources::{
        agent, api_key, audit, ca, cert, contexts, controller, event, grant, history, log, metric, policy, result,
        role, state, token, token_template, user,
    },
    terminal::Terminal,
    verbs::{
        apply, complete, completion, delete, doctor, explain, export, login, plan, rollback, validate, version, wait,
        whoami,
    },
};

/// How long a call may take when nothing is said.
pub const USUAL_TIMEOUT: Duration = Duration::from_secs(30);

/// What a command works with.
#[derive(Debug)]
pub struct Session {
    pub printer: Printer,
    global: Global,
}

impl Session {
    /// The chosen context.
    pub fn context(&self, asked: &Asked) -> Result<Context, Problem> {
        context::explicit_api_key(self.global.api_key_file())
            .and_then(|key| Context::load(self.global.config(), self.global.context(), key))
            .map_err(|problem| problem.what(asked.what()))
    }

    /// A connection to the controller of a context.
    pub async fn connect_as(&self, context: &Context, asked: &Asked) -> Result<Client, Problem> {
        let manner = Manner {
            timeout: self.timeout(),
            confirm: self.global.confirm(),
            shows: self.global.show_rpc,
            aside: self.printer.terminal.aside.clone(),
        };
        Client::connect(context, manner, asked).await
    }

    /// For each call.
    pub fn timeout(&self) -> Duration {
        self.global.timeout.unwrap_or(USUAL_TIMEOUT)
    }

    /// What was typed.
    pub fn global(&self) -> &Global {
        &self.global
    }

    /// That a change to a protected context is meant.
    pub async fn confirm(&self, context: &str) -> Result<(), Problem> {
        door::confirm(context, self.global.confirm(), self.printer.terminal.aside.clone()).await
    }

    /// A connection to the controller of the chosen context.
    pub async fn connect(&mut self, asked: &Asked) -> Result<Client, Problem> {
        let context = self.context(asked)?;
        let now = SystemTime::from(self.printer.terminal.now());
        if let Some(days) = context.days_left(now) {
            self.printer.note(&format!(
                "the certificate of context {} ends in less than {}; another one: musterctl user renew",
                context.name,
                count::of(days as i64 + 1, "day", "days")
            ))?;
        }
        self.connect_as(&context, asked).await
    }
}

/// Runs the command that `arguments` say, the program's name first. `interrupt` ends it early.
pub async fn run(arguments: Vec<OsString>, mut terminal: Terminal, interrupt: impl Future<Output = ()>) -> Exit {
    let mut command = cli::command();
    let habits::Meant { arguments, note } = habits::meant(arguments, &command);
    let parsed = command
        .try_get_matches_from_mut(&arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return explain(&error, &arguments, note, &mut terminal),
    };
    let printer = Printer::new(cli.global.output, terminal);
    let as_json = printer.format == Format::Json;
    let mut session = Session {
        printer,
        global: cli.global,
    };
    if let Some(note) = note {
        // When stderr cannot be written there is nobody to tell.
        let _ = session.printer.note(&note);
    }
    let ended = tokio::select! {
        // The command first: what it does before it first waits, such as reading manifests from a terminal, it does while
        // Ctrl-C still has its usual meaning.
        biased;
        ended = dispatch(cli.command, &mut session) => ended,
        () = interrupt => return Exit::Interrupted,
    };
    match ended {
        Ok(()) => Exit::Success,
        Err(problem) => {
            // When stderr cannot be written there is nobody left to tell; the exit code remains.
            let _ = problem.print(&mut session.printer.terminal.err, as_json);
            problem.exit
        }
    }
}

async fn dispatch(command: Command, session: &mut Session) -> Result<(), Problem> {
    match command {
        Command::Agent(command) => agent::run(command, session).await,
        Command::State(command) => state::run(command, session).await,
        Command::Policy(command) => policy::run(command, session).await,
        Command::Plan(args) => plan::run(args, session).await,
        Command::Apply(args) => apply::run(args, session).await,
        Command::Delete(args) => delete::run(args, session).await,
        Command::Validate(args) => validate::run(&args, session),
        Command::Export(args) => export::run(args, session).await,
        Command::Versions(args) => rollback::list(args, session).await,
        Command::Rollback(args) => rollback::run(args, session).await,
        Command::Explain(command) => explain::run(command, session).await,
        Command::Metric(command) => metric::run(command, session).await,
        Command::Token(command) => token::run(command, session).await,
        Command::Ca(command) => ca::run(command, session).await,
        Command::Cert(command) => cert::run(command, session).await,
        Command::Controller(command) => controller::run(command, session).await,
        Command::Event(command) => event::run(command, session).await,
        Command::Log(command) => log::run(command, session).await,
        Command::Result(command) => result::run(command, session).await,
        Command::History(command) => history::run(command, session).await,
        Command::User(command) => user::run(command, session).await,
        Command::Role(command) => role::run(command, session).await,
        Command::TokenTemplate(command) => token_template::run(command, session).await,
        Command::Grant(command) => grant::run(command, session).await,
        Command::ApiKey(command) => api_key::run(command, session).await,
        Command::Audit(command) => audit::run(command, session).await,
        Command::Context(command) => contexts::run(command, session).await,
        Command::Login(args) => login::run(*args, session).await,
        Command::Doctor(_) => doctor::run(session).await,
        Command::Wait(command) => wait::run(command, session).await,
        Command::Whoami(_) => whoami::run(session).await,
        Command::Completion(args) => completion::run(&args, session),
        Command::Complete(args) => complete::run(args, cli::command(), session).await,
        Command::Version => version::run(session),
    }
}

/// Help, the version, or what is wrong with the arguments.
fn explain(error: &clap::Error, arguments: &[OsString], note: Option<String>, terminal: &mut Terminal) -> Exit {
    let stream = if error.use_stderr() {
        &mut terminal.err
    } else {
        &mut terminal.out
    };
    let hint = hint(error, arguments);
    let text = if wants_json(arguments) && error.use_stderr() {
        let message = error.render().to_string();
        let mut lines = message.trim_start_matches("error: ").lines();
        let steps: Vec<_> = hint.into_iter().chain(["musterctl --help".to_owned()]).collect();
        document::json_line(&json!({
            "message": lines.next().unwrap_or_default(),
            "what": "read the command line",
            "why": message.trim_end(),
            "do": steps,
            "exitCode": Exit::Usage.code(),
        }))
    } else {
        let message = error.render();
        let message = if stream.colour {
            message.ansi().to_string()
        } else {
            message.to_string()
        };
        if let Some(note) = note.filter(|_| error.use_stderr()) {
            // As below.
            let _ = stream.write(&(note + "\n"));
        }
        hint.into_iter().fold(message, |message, hint| message + &hint + "\n")
    };
    // As above: the exit code is all that is left when nobody reads.
    let _ = stream.write(&text);
    if error.use_stderr() { Exit::Usage } else { Exit::Success }
}

/// What clap cannot know: the ways of other tools.
fn hint(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    const VERBS: [&str; 8] = ["get", "list", "ls", "show", "describe", "watch", "delete", "create"];
    let first = arguments.get(1)?.to_str()?;
    let said = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand
            if said(ContextKind::InvalidSubcommand) == Some(first) && VERBS.contains(&first) =>
        {
            Some("The thing comes first, and then what to do with it: musterctl agent list".to_owned())
        }
        ErrorKind::UnknownArgument if first == "apply" => said(ContextKind::InvalidArg)
            .filter(|argument| !argument.starts_with('-'))
            .map(|argument| format!("Files and folders are named with -f: musterctl apply -f {argument}")),
        _ => None,
    }
}

/// Whether JSON was asked for on a command line that clap could not read.
fn wants_json(arguments: &[OsString]) -> bool {
    let is_json = |format: &str| matches!(format, "json" | "jsonl");
    let texts: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    texts
        .iter()
        .filter_map(|text| text.strip_prefix("--output=").or(text.strip_prefix("-o")))
        .any(|format| is_json(format.trim_start_matches('=')))
        || texts
            .windows(2)
            .any(|pair| matches!(&*pair[0], "-o" | "--output") && is_json(&pair[1]))
}
