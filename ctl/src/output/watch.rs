//! A stream of changes: table rows appended under one header, JSON one object a line, YAML documents, or names.
//! Where changes come from and what happens on a cut is `watching`.

use std::io;

use serde_json::Value;

use super::{
    Format, Printer, Row, document,
    table::{Cell, Layout},
    text,
};

/// What was seen, in the words of the API.
#[derive(Debug)]
pub enum Change<R> {
    /// As it is now.
    Put(R),
    /// Gone, or no longer matching; only what names it is set.
    Delete(R),
    /// All that was there at the start has been shown.
    Synced,
}

/// Prints changes. In a table, what is there at the start is held back until all of it is known, so that the columns fit.
#[derive(Debug)]
pub struct WatchPrinter {
    layout: Layout,
    first: Option<Vec<Vec<Cell>>>,
}

impl WatchPrinter {
    pub fn new<R: Row>(printer: &Printer) -> WatchPrinter {
        let wide = printer.format == Format::Wide;
        WatchPrinter {
            layout: Layout::new(R::COLUMNS, wide, printer.terminal.width),
            first: Some(Vec::new()),
        }
    }

    /// `event` is the change in the JSON dialect.
    pub fn print<R: Row>(
        &mut self,
        printer: &mut Printer,
        change: &Change<R>,
        gone: impl FnOnce(&R) -> Vec<Cell>,
        event: impl FnOnce() -> Value,
    ) -> io::Result<()> {
        match printer.format {
            Format::Json => printer.terminal.out.write(&document::json_line(&event())),
            Format::Yaml => printer
                .terminal
                .out
                .write(&format!("---\n{}", document::yaml(&event()))),
            Format::Name => match change {
                Change::Put(item) | Change::Delete(item) => {
                    printer.terminal.out.write(&(text::line(&item.name()) + "\n"))
                }
                Change::Synced => Ok(()),
            },
            Format::Table | Format::Wide => {
                let now = printer.terminal.now();
                let row = match change {
                    Change::Put(item) => item.cells(now),
                    Change::Delete(item) => gone(item),
                    Change::Synced => return self.start(printer),
                };
                self.layout.widen(&row);
                match &mut self.first {
                    Some(rows) => {
                        rows.push(row);
                        Ok(())
                    }
                    None => printer
                        .terminal
                        .out
                        .write(&self.layout.row(&row, printer.terminal.out.colour)),
                }
            }
        }
    }

    fn start(&mut self, printer: &mut Printer) -> io::Result<()> {
        let Some(rows) = self.first.take() else { return Ok(()) };
        let colour = printer.terminal.out.colour;
        let mut table = self.layout.header();
        for row in &rows {
            table.push_str(&self.layout.row(row, colour));
        }
        printer.terminal.out.write(&table)
    }
}
