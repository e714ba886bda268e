//! `musterctl completion`: a script for the user's shell. It asks `musterctl __complete` at every Tab, so that names of agents and
//! labels are those of now, and a newer musterctl needs no newer script.

use clap::{Args, ValueEnum};

use crate::{app::Session, problem::Problem};

/// Print a script that completes commands, names and labels in your shell
///
/// What is completed is what is there: agents, labels, policies, users, roles, tokens, contexts. The controller is asked for it, and
/// when it does not answer within 0.3 s there is nothing to complete.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  musterctl completion bash > ~/.local/share/bash-completion/completions/musterctl\n  \
                  musterctl completion zsh > \"${fpath[1]}/_musterctl\"\n  \
                  musterctl completion fish > ~/.config/fish/completions/musterctl.fish"
)]
pub struct CompletionArgs {
    /// The shell it is for
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub fn run(args: &CompletionArgs, session: &mut Session) -> Result<(), Problem> {
    let script = match args.shell {
        Shell::Bash => include_str!("completion/musterctl.bash"),
        Shell::Zsh => include_str!("completion/musterctl.zsh"),
        Shell::Fish => include_str!("completion/musterctl.fish"),
    };
    Ok(session.printer.terminal.out.write(script)?)
}
