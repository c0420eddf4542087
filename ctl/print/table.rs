//! Rows in columns. A colour takes no room.

use anstyle::Style;

use crate::paint::{QUIET, in_style, of_word};

/// One cell of a table.
#[derive(Debug, Clone)]
pub struct Cell {
    pub text: String,
    pub style: Style,
}

impl Cell {
    /// Without a colour.
    pub fn plain(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            style: Style::new(),
        }
    }

    /// A word for a state or a role, in its colour.
    pub fn word(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            style: of_word(text),
        }
    }
}

/// The first row.
pub fn heading<const N: usize>(words: [&str; N]) -> Vec<Cell> {
    words
        .map(|word| Cell {
            text: word.to_owned(),
            style: QUIET,
        })
        .to_vec()
}

/// Rows in columns, two spaces apart.
pub fn table(rows: &[Vec<Cell>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |cell: &Cell| cell.text.chars().count();
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(width).max().unwrap_or(0)
        })
        .collect();
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let mut line = String::new();
            // Room is only left in front of a cell that has something in it.
            let mut room = 2;
            for (cell, wide) in row.iter().zip(&widths) {
                if !cell.text.is_empty() {
                    line.extend(std::iter::repeat_n(' ', room));
                    line.push_str(&in_style(cell.style, &cell.text));
                    room = 0;
                }
                room += wide - width(cell) + 2;
            }
            line
        })
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 3]| cells.map(Cell::plain).to_vec();
        let rows = [
            row(["A", "B", "C"]),
            row(["long", "", "y"]),
            row(["x", "z", ""]),
        ];
        assert_eq!(table(&rows), "  A     B  C\n  long     y\n  x     z");
    }

    #[test]
    fn a_colour_takes_no_room() {
        let rows = [
            vec![Cell::word("live"), Cell::plain("1")],
            vec![Cell::plain("warm"), Cell::plain("2")],
        ];
        let stripped = anstream::adapter::strip_str(&table(&rows)).to_string();
        assert_eq!(stripped, "  live  1\n  warm  2");
        assert_ne!(table(&rows), stripped);
    }
}
