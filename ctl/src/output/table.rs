//! Tables as kubectl and gh print them: a header, two spaces between columns, nothing drawn. On a terminal the columns
//! that may be shortened are, until a row fits its width.

use super::{style::Tone, text};

const GAP: usize = 2;
/// A column that is shortened keeps at least this much.
const SHORTEST: usize = 12;

#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub title: &'static str,
    /// Shown by `-o wide` only.
    pub wide: bool,
    /// May be cut to fit a terminal.
    pub cut: bool,
    /// Shown when a row has something in it, and by `-o wide`.
    pub sparse: bool,
}

impl Column {
    pub const fn new(title: &'static str) -> Column {
        Column {
            title,
            wide: false,
            cut: false,
            sparse: false,
        }
    }

    pub const fn sparse(title: &'static str) -> Column {
        Column {
            sparse: true,
            ..Column::new(title)
        }
    }

    pub const fn wide(title: &'static str) -> Column {
        Column {
            wide: true,
            ..Column::new(title)
        }
    }

    pub const fn cut(title: &'static str) -> Column {
        Column {
            cut: true,
            ..Column::new(title)
        }
    }
}

/// One field of a row: a single clean line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Text from anywhere; nothing at all is shown as "-".
    pub fn new(content: impl AsRef<str>) -> Cell {
        let clean = text::line(content.as_ref());
        Cell {
            text: if clean.is_empty() { "-".to_owned() } else { clean },
            tone: Tone::Plain,
        }
    }

    pub fn toned(content: impl AsRef<str>, tone: Tone) -> Cell {
        Cell {
            tone,
            ..Cell::new(content)
        }
    }
}

impl Cell {
    fn is_nothing(&self) -> bool {
        self.text == "-"
    }
}

impl From<Option<String>> for Cell {
    fn from(content: Option<String>) -> Cell {
        Cell::new(content.unwrap_or_default())
    }
}

/// The widths of a table's columns, and which of them are shown.
#[derive(Debug)]
pub struct Layout {
    shown: Vec<(usize, Column)>,
    widths: Vec<usize>,
    limit: Option<usize>,
}

impl Layout {
    /// `limit` is the terminal's width; wide tables are never cut.
    pub fn new(columns: &[Column], wide: bool, limit: Option<usize>) -> Layout {
        let shown: Vec<(usize, Column)> = columns
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, column)| wide || !column.wide)
            .collect();
        let widths = shown.iter().map(|(_, column)| text::width(column.title)).collect();
        Layout {
            shown,
            widths,
            limit: limit.filter(|_| !wide),
        }
    }

    /// Makes room for `row`. Rows already printed keep their widths, so room is only ever added.
    pub fn widen(&mut self, row: &[Cell]) {
        for (width, (index, _)) in self.widths.iter_mut().zip(&self.shown) {
            *width = (*width).max(text::width(&row[*index].text));
        }
    }

    pub fn header(&self) -> String {
        let titles: Vec<Cell> = self
            .shown
            .iter()
            .map(|(_, column)| Cell::toned(column.title, Tone::Plain))
            .collect();
        self.join(titles.iter(), false)
    }

    pub fn row(&self, row: &[Cell], colour: bool) -> String {
        self.join(self.shown.iter().map(|(index, _)| &row[*index]), colour)
    }

    fn join<'a>(&self, cells: impl Iterator<Item = &'a Cell>, colour: bool) -> String {
        let widths = self.fitted();
        let last = widths.len().saturating_sub(1);
        let mut line = String::new();
        for (position, (cell, width)) in cells.zip(&widths).enumerate() {
            let content = match self.limit {
                Some(_) if self.shown[position].1.cut => text::shorten(&cell.text, *width),
                _ => cell.text.clone(),
            };
            line.push_str(&cell.tone.paint(&content, colour));
            if position != last {
                let pad = width.saturating_sub(text::width(&content)) + GAP;
                line.extend(std::iter::repeat_n(' ', pad));
            }
        }
        line.push('\n');
        line
    }

    /// The widths after cutting: the widest column that may be cut gives first.
    fn fitted(&self) -> Vec<usize> {
        let mut widths = self.widths.clone();
        let Some(limit) = self.limit else { return widths };
        let mut excess = (widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)).saturating_sub(limit);
        while excess > 0 {
            let widest = (0..widths.len())
                .filter(|&position| self.shown[position].1.cut && widths[position] > SHORTEST)
                .max_by_key(|&position| widths[position]);
            let Some(position) = widest else { break };
            let next = (0..widths.len())
                .filter(|&other| other != position && self.shown[other].1.cut)
                .map(|other| widths[other])
                .max()
                .unwrap_or(SHORTEST)
                .clamp(SHORTEST, widths[position] - 1);
            let given = excess.min(widths[position] - next);
            widths[position] -= given;
            excess -= given;
        }
        widths
    }
}

/// A whole table: header and rows, or nothing when there are no rows.
pub fn render(columns: &[Column], rows: &[Vec<Cell>], wide: bool, limit: Option<usize>, colour: bool) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let is_empty = |index: usize| rows.iter().all(|row| row[index].is_nothing());
    let columns: Vec<Column> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| Column {
            wide: column.wide || (column.sparse && is_empty(index)),
            ..*column
        })
        .collect();
    let mut layout = Layout::new(&columns, wide, limit);
    for row in rows {
        layout.widen(row);
    }
    let mut table = layout.header();
    for row in rows {
        table.push_str(&layout.row(row, colour));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column::new("NAME"),
        Column::wide("ID"),
        Column::cut("OUTPUT"),
        Column::cut("LABELS"),
    ];

    fn row(cells: [&str; 4]) -> Vec<Cell> {
        cells.iter().map(Cell::new).collect()
    }

    fn rows() -> Vec<Vec<Cell>> {
        vec![
            row([
                "db-01.fra",
                "7d0c51c2",
                "DISK CRITICAL - free space: / 812 MB (4%)",
                "role=db,zone=eu",
            ]),
            row(["web", "1", "", "role=web"]),
        ]
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_spaces() {
        assert_eq!(
            render(COLUMNS, &rows(), false, None, false),
            "NAME       OUTPUT                                     LABELS\n\
             db-01.fra  DISK CRITICAL - free space: / 812 MB (4%)  role=db,zone=eu\n\
             web        -                                          role=web\n"
        );
    }

    #[test]
    fn on_a_terminal_the_longest_columns_that_may_be_cut_give_way() {
        let table = render(COLUMNS, &rows(), false, Some(50), false);
        assert_eq!(
            table,
            "NAME       OUTPUT                  LABELS\n\
             db-01.fra  DISK CRITICAL - free…   role=db,zone=eu\n\
             web        -                       role=web\n"
        );
        assert!(table.lines().all(|line| text::width(line) <= 50));
    }

    #[test]
    fn a_terminal_too_narrow_for_the_table_cuts_no_column_to_nothing() {
        let table = render(COLUMNS, &rows(), false, Some(10), false);
        assert!(table.contains("db-01.fra  DISK CRITIC…  role=db,zon…"), "{table}");
    }

    #[test]
    fn wide_shows_every_column_and_cuts_nothing() {
        let table = render(COLUMNS, &rows(), true, Some(20), false);
        assert!(table.starts_with("NAME       ID        OUTPUT"), "{table}");
        assert!(table.contains("812 MB (4%)  role=db,zone=eu"), "{table}");
    }

    #[test]
    fn a_sparse_column_is_there_when_a_row_has_something_in_it() {
        const COLUMNS: &[Column] = &[Column::new("NAME"), Column::sparse("SCOPE")];
        let row = |scope: &str| vec![Cell::new("a"), Cell::new(scope)];
        let render = |rows: &[Vec<Cell>], wide| render(COLUMNS, rows, wide, None, false);
        assert_eq!(render(&[row(""), row("")], false), "NAME\na\na\n");
        assert_eq!(
            render(&[row(""), row("env=dev")], false),
            "NAME  SCOPE\na     -\na     env=dev\n"
        );
        assert_eq!(render(&[row("")], true), "NAME  SCOPE\na     -\n");
    }

    #[test]
    fn colour_does_not_disturb_the_alignment() {
        let rows = vec![vec![
            Cell::toned("CRITICAL", Tone::Bad),
            Cell::new("x"),
            Cell::new("y"),
            Cell::new("z"),
        ]];
        let table = render(COLUMNS, &rows, false, None, true);
        assert_eq!(table.lines().nth(1).unwrap(), "\u{1b}[31mCRITICAL\u{1b}[0m  y       z");
    }

    #[test]
    fn a_table_without_rows_is_nothing() {
        assert_eq!(render(COLUMNS, &[], false, None, false), "");
    }
}
