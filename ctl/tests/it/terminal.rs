//! A terminal that remembers what was written to it.

use std::{
    io::{self, Read, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use musterctl::terminal::{Aside, Stream, Terminal};
use tokio::sync::watch;

/// Longer than anything here takes, so that a test that waits for nothing ends and says so.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct Screen {
    text: Arc<Mutex<String>>,
    changed: watch::Sender<usize>,
}

impl Screen {
    pub fn new() -> Screen {
        Screen {
            text: Arc::default(),
            changed: watch::Sender::new(0),
        }
    }

    pub fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// Waits until `wanted` holds of what is on the screen.
    pub async fn until(&self, wanted: impl Fn(&str) -> bool) {
        let mut changes = self.changed.subscribe();
        let reached = changes.wait_for(|_| wanted(&self.text()));
        if tokio::time::timeout(PATIENCE, reached).await.is_err() {
            panic!("what was waited for has not come; the screen shows:\n{}", self.text());
        }
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text
            .lock()
            .unwrap()
            .push_str(std::str::from_utf8(bytes).expect("the program writes UTF-8"));
        self.changed.send_modify(|writes| *writes += 1);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Nobody is there to be asked.
impl Aside for Screen {
    fn tell(&self, text: &str) -> io::Result<()> {
        self.clone().write_all(text.as_bytes())
    }

    fn ask(&self, _: &str) -> io::Result<Option<String>> {
        Ok(None)
    }
}

/// No terminal as far as the program knows: no colour, no width, and it is always the same moment.
pub fn terminal(out: &Screen, err: &Screen, input: impl Read + Send + 'static) -> Terminal {
    Terminal {
        out: Stream {
            writer: Box::new(out.clone()),
            colour: false,
        },
        err: Stream {
            writer: Box::new(err.clone()),
            colour: false,
        },
        input: Box::new(input),
        width: None,
        clock: || "2026-11-20T23:00:00Z".parse().expect("a time"),
        aside: Arc::new(err.clone()),
    }
}
