//! What a shell completes, by the shell itself, with the script that `musterctl completion` prints for it.

use std::{fs, path::Path, process::Command};

use muster_tests::{
    Controller, binaries,
    ctl::Outcome,
    poll::{self, SECOND},
    process, settings, tools,
};

/// Calls the function as bash does. bash takes words apart at `=`, and wants what is behind.
const BASH: &str = "source musterctl.bash\nCOMP_LINE=$1; COMP_POINT=${#1}; COMP_WORDS=()\n\
                    for word in ${1//=/ = }; do COMP_WORDS+=(\"$word\"); done\n\
                    [[ $1 == *[\\ =] ]] && COMP_WORDS+=(\"\"); [[ $1 == *= ]] && unset 'COMP_WORDS[-1]'\n\
                    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n\
                    _musterctl; printf '%s\\n' \"${COMPREPLY[@]}\"\n";

/// A shell at a terminal, where the line is typed and completed; prints the line as it is then.
const ZSH: &str = "zmodload zsh/zpty\nzpty shell zsh -f -i\n\
                   zpty -w shell \"PS1=; fpath=($PWD \\$fpath); autoload -Uz compinit; compinit -u -D; \
                   zle -C whole complete-word _main_complete; \
                   show() { zle complete-word; print -r -- \\\"<\\$BUFFER>\\\"; BUFFER=; zle send-break }; \
                   zle -N show; bindkey '^I' show; print loa''ded\"\n\
                   zpty -r -m shell text '*loaded*'\nzpty -w -n shell \"$1\"$'\\t'\nzpty -r -m shell text '*<*>*'\n\
                   print -r -- \"${${text##*<}%%>*}\"\nzpty -d shell\n";

const FISH: &str = "source musterctl.fish\ncomplete -C $argv[1]\n";

/// A controller with one machine, and a home with the scripts.
fn controller() -> Controller {
    let controller = Controller::start();
    let id = "7d0c51c2-9f0e-4b57-a3a1-5e1f0c7b8d21";
    controller.ctl().ok(&[
        "agent",
        "preregister",
        "--id",
        id,
        "--name",
        "web-01",
        "--label",
        "env=prod",
    ]);
    for (shell, file) in [
        ("bash", "musterctl.bash"),
        ("zsh", "_musterctl"),
        ("fish", "musterctl.fish"),
    ] {
        let script = controller.ctl().ok(&["completion", shell]).stdout;
        fs::write(controller.path(file), script).expect("a script");
    }
    controller
}

/// Runs a shell until it completes each line to what is wanted: a machine that is busy takes longer than the moment that is waited.
fn completes(name: &str, arguments: impl Fn(&mut Command, &Path, &str), lines: &[(&str, &str)]) {
    let Some(shell) = tools::find(name) else {
        return tools::skipped(&format!("completion in {name}"), &format!("{name} is not installed"));
    };
    let controller = controller();
    let home = controller.path(".");
    let bin = binaries::path("musterctl").with_file_name("");
    for (line, wanted) in lines {
        poll::until("it is completed", 60 * SECOND, || {
            let mut command = process::clean_command(&shell, &home);
            command
                .current_dir(&home)
                .env("PATH", format!("{}:{}", bin.display(), settings::path()))
                .env("MUSTER_CONFIG", controller.path("tester.yaml"));
            arguments(&mut command, &home, line);
            match Outcome::of(command).stdout {
                found if found == format!("{wanted}\n") => Ok(()),
                found => Err(format!("{line}: {found:?}")),
            }
        });
    }
}

#[test]
fn bash_completes_commands_options_and_the_names_of_now() {
    let arguments = |command: &mut Command, _: &Path, line: &str| {
        command.args(["-c", BASH, "bash", line]);
    };
    let lines = [
        ("musterctl ag", "agent"),
        ("musterctl agent lab", "label"),
        ("musterctl agent get ", "web-01"),
        ("musterctl describe agent w", "web-01"),
        ("musterctl agent list -o wi", "wide"),
        ("musterctl agent list -l env=p", "prod"),
        ("musterctl agent list -l env=", "prod"),
    ];
    completes("bash", arguments, &lines);
}

#[test]
fn zsh_completes_commands_options_and_the_names_of_now() {
    let arguments = |command: &mut Command, home: &Path, line: &str| {
        let script = home.join("complete.zsh");
        fs::write(&script, ZSH).expect("a script");
        command.arg("-f").arg(script).arg(line);
    };
    let lines = [
        ("musterctl ag", "musterctl agent "),
        ("musterctl agent lab", "musterctl agent label "),
        ("musterctl agent get ", "musterctl agent get web-01 "),
        ("musterctl describe agent w", "musterctl describe agent web-01 "),
        ("musterctl agent list -o wi", "musterctl agent list -o wide "),
        ("musterctl agent list -l env=p", "musterctl agent list -l env=prod "),
    ];
    completes("zsh", arguments, &lines);
}

#[test]
fn fish_completes_commands_options_and_the_names_of_now() {
    let arguments = |command: &mut Command, home: &Path, line: &str| {
        let script = home.join("complete.fish");
        fs::write(&script, FISH).expect("a script");
        command.arg("--no-config").arg(script).arg(line);
    };
    let lines = [
        ("musterctl ag", "agent\tThe machines: list, look at, follow, label"),
        ("musterctl agent lab", "label\tSet and remove labels of agents"),
        ("musterctl agent get ", "web-01"),
        ("musterctl describe agent w", "web-01"),
        (
            "musterctl agent list -o wi",
            "wide\tA table with every column, nothing cut",
        ),
        ("musterctl agent list -l env=p", "env=prod"),
    ];
    completes("fish", arguments, &lines);
}
