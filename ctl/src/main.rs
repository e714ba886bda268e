//! The life of the process: streams, runtime, Ctrl-C, exit code. All else is in the library.

use std::process::ExitCode;

use musterctl::{app, terminal::Terminal};

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("musterctl: failed to start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let interrupt = async {
        // Without a handler Ctrl-C still ends the process, as the shell does it.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let exit = runtime.block_on(app::run(
        std::env::args_os().collect(),
        Terminal::of_process(),
        interrupt,
    ));
    // A lookup of a name may still hang in a thread of the runtime; it is not waited for.
    runtime.shutdown_background();
    exit.into()
}
