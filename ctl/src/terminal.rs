//! The world around the program as the commands see it: two streams to write, one to read, the width, the clock.
//! Tests put their own in. Nothing in this crate writes to the process's streams in another way.

use std::{
    fmt,
    io::{self, BufRead as _, IsTerminal as _, Read, Write},
    sync::Arc,
};

use jiff::Timestamp;

pub struct Terminal {
    pub out: Stream,
    pub err: Stream,
    pub input: Box<dyn Read + Send>,
    /// Columns of the terminal that `out` is; `None`: `out` is no terminal, and nothing is shortened.
    pub width: Option<usize>,
    pub clock: fn() -> Timestamp,
    pub aside: Arc<dyn Aside>,
}

/// What is said to the user, and asked, in the middle of a call, where nobody holds the streams.
pub trait Aside: fmt::Debug + Send + Sync {
    /// On standard error.
    fn tell(&self, text: &str) -> io::Result<()>;
    /// The line that the user types. None: there is no terminal to ask on.
    fn ask(&self, question: &str) -> io::Result<Option<String>>;
}

/// Where there is no user.
#[derive(Debug)]
pub struct Nobody;

impl Aside for Nobody {
    fn tell(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn ask(&self, _: &str) -> io::Result<Option<String>> {
        Ok(None)
    }
}

#[derive(Debug)]
struct ProcessAside;

impl Aside for ProcessAside {
    fn tell(&self, text: &str) -> io::Result<()> {
        io::stderr().write_all(text.as_bytes())
    }

    fn ask(&self, question: &str) -> io::Result<Option<String>> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Ok(None);
        }
        self.tell(question)?;
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line)?;
        Ok((read > 0).then_some(line))
    }
}

impl Terminal {
    /// The process's own. Colour is for terminals only, and `NO_COLOR`, `CLICOLOR` and `TERM=dumb` are heeded.
    pub fn of_process() -> Terminal {
        let colour = |choice| !matches!(choice, anstream::ColorChoice::Never);
        Terminal {
            out: Stream {
                colour: colour(anstream::AutoStream::choice(&io::stdout())),
                writer: Box::new(io::BufWriter::new(io::stdout())),
            },
            err: Stream {
                colour: colour(anstream::AutoStream::choice(&io::stderr())),
                writer: Box::new(io::stderr()),
            },
            input: Box::new(io::stdin()),
            width: terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0)),
            clock: Timestamp::now,
            aside: Arc::new(ProcessAside),
        }
    }

    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal")
            .field("width", &self.width)
            .finish_non_exhaustive()
    }
}

pub struct Stream {
    pub writer: Box<dyn Write + Send>,
    pub colour: bool,
}

impl Stream {
    /// Writes all of `text` and flushes it, so that whoever reads a pipe has it now.
    pub fn write(&mut self, text: &str) -> io::Result<()> {
        self.writer.write_all(text.as_bytes())?;
        self.writer.flush()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("colour", &self.colour)
            .finish_non_exhaustive()
    }
}
