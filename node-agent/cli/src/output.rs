//! Tables and JSON.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use crate::args::Format;
use crate::failure::Failure;

/// Version of the JSON documents' shape.
const API_VERSION: &str = "skep.inspect/v1";

/// A table like kubectl's: columns as wide as their longest cell, three spaces between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headers: &[&'static str]) -> Self {
        Self {
            headers: headers.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; an empty cell is shown as `<none>`.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        let cell = |cell: String| {
            if cell.is_empty() {
                "<none>".to_owned()
            } else {
                cell
            }
        };
        self.rows.push(cells.map(cell).into());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text; without rows only a note.
    pub(crate) fn text(&self, no_headers: bool) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let headers: Vec<String> = self
            .headers
            .iter()
            .map(|header| (*header).to_owned())
            .collect();
        let lines: Vec<&Vec<String>> = (!no_headers)
            .then_some(&headers)
            .into_iter()
            .chain(&self.rows)
            .collect();
        let columns = self.headers.len();
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for line in lines {
            let mut row = String::new();
            for (cell, width) in line.iter().zip(&widths) {
                let _always_works = write!(row, "{cell:<width$}   ");
            }
            text.push_str(row.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Prints a table, or a note on standard error when it is empty.
pub(crate) fn table(table: &Table, no_headers: bool) {
    if table.is_empty() {
        note("nothing found");
    } else {
        text(&table.text(no_headers));
    }
}

/// The document of a list.
fn list_document<T: Serialize>(kind: &str, items: &[T]) -> Value {
    json!({ "apiVersion": API_VERSION, "kind": kind, "items": items })
}

/// Prints a list as JSON.
pub(crate) fn list<T: Serialize>(kind: &str, items: &[T]) {
    text(&format!("{:#}\n", list_document(kind, items)));
}

/// Prints text as it is.
pub(crate) fn text(text: &str) {
    send(io::stdout().lock(), text);
}

/// A reader that has seen enough (`skep ... | head`) is no failure, and there is nobody left to
/// tell of any other.
fn send(mut to: impl Write, text: &str) {
    let _nobody_reads = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

/// Prints a note that is no part of the answer.
pub(crate) fn note(text: &str) {
    send(io::stderr().lock(), &format!("{text}\n"));
}

/// Prints a failure: as JSON where JSON was asked for.
pub(crate) fn failure(format: Format, failure: &Failure) {
    match format {
        Format::Table => note(&format!("skep: {}", failure.message)),
        Format::Json => {
            let document = json!({
                "apiVersion": API_VERSION,
                "kind": "Failure",
                "code": failure.code,
                "message": failure.message,
            });
            note(&format!("{document:#}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell_and_lines_end_without_blanks() {
        let mut table = Table::new(&["NODE", "STATE"]);
        table.row(["node-1".into(), "up".into()]);
        table.row(["n".into(), String::new()]);
        assert_eq!(
            table.text(false),
            "NODE     STATE\nnode-1   up\nn        <none>\n"
        );
        assert_eq!(table.text(true), "node-1   up\nn        <none>\n");
        assert_eq!(Table::new(&["NODE"]).text(false), "");
    }

    #[test]
    fn a_list_names_its_kind_and_version() {
        assert_eq!(
            list_document("NodeList", &["a"]),
            json!({ "apiVersion": "skep.inspect/v1", "kind": "NodeList", "items": ["a"] })
        );
    }
}
