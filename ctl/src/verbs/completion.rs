//! `musterctl completion`: a script for the user's shell, made from the same definition as the help texts.

use clap::{Args, ValueEnum};
use clap_complete::aot;

use crate::{app::Session, problem::Problem};

/// Print a script that completes commands in your shell
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

pub fn run(args: &CompletionArgs, mut command: clap::Command, session: &mut Session) -> Result<(), Problem> {
    let shell = match args.shell {
        Shell::Bash => aot::Shell::Bash,
        Shell::Zsh => aot::Shell::Zsh,
        Shell::Fish => aot::Shell::Fish,
    };
    let mut script = Vec::new();
    aot::generate(shell, &mut command, "musterctl", &mut script);
    Ok(session.printer.terminal.out.write(&String::from_utf8_lossy(&script))?)
}
