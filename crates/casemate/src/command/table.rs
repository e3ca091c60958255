//! Rows for people.

use std::fmt::Write as _;

/// Rows under their headings, in columns as wide as they must be.
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in std::iter::once(headings.map(str::to_owned)).chain(rows.iter().cloned()) {
        let line = text.len();
        for (cell, width) in row.iter().zip(widths) {
            // What a sandbox or another user named must not reach the terminal as a command to it.
            let cell = clean(cell);
            let _ = write!(text, "{cell:<width$}  ");
        }
        text.truncate(line + text[line..].trim_end().len());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

/// The text without what would act on a terminal.
pub fn clean(text: &str) -> String {
    let letters = text.chars();
    letters.map(|c| if acts(c) { '?' } else { c }).collect()
}

/// Letters that move the cursor, or turn the direction of what follows.
fn acts(letter: char) -> bool {
    let turns = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{061c}')
        || matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    letter.is_control() || turns
}

/// Bytes for a cell.
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_widest_cells_and_clean() {
        let rows = [
            ["é".to_owned(), "1".to_owned()],
            ["long\x1b\u{202e}".to_owned(), String::new()],
        ];
        assert_eq!(table(["A", "B"], &rows), "A       B\né       1\nlong??");
    }

    #[test]
    fn a_table_without_rows_is_its_headings() {
        assert_eq!(table(["A", "B"], &[]), "A  B");
    }
}
