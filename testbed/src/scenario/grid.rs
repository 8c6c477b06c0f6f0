//! Matrices as text: rows try, columns are tried. The first line is `from` and the columns' names.

use serde::Deserialize;

/// A matrix of signs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Grid {
    /// Column names.
    pub columns: Vec<String>,
    /// Row names, each with one sign a column.
    pub rows: Vec<(String, Vec<char>)>,
}

/// One place in a grid that something is said about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell<'a> {
    /// Who tries.
    pub row: &'a str,
    /// Who is tried.
    pub column: &'a str,
    /// `+`, `-` or `?` in a promise; any [`crate::probe::Outcome::sign`] in a measurement.
    pub sign: char,
}

impl Grid {
    /// Every cell but those with `.`.
    pub fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        self.rows.iter().flat_map(|(row, signs)| {
            let pairs = self
                .columns
                .iter()
                .zip(signs)
                .filter(|(_, sign)| **sign != '.');
            pairs.map(|(column, sign)| Cell {
                row,
                column,
                sign: *sign,
            })
        })
    }

    /// The sign at a place, if the grid has it.
    pub fn at(&self, row: &str, column: &str) -> Option<char> {
        let place = self.columns.iter().position(|name| name == column)?;
        let (_, signs) = self.rows.iter().find(|(name, _)| name == row)?;
        signs.get(place).copied()
    }

    /// The grid with every cell that is not `.` replaced by what `sign` gives for (row, column).
    pub fn map(&self, mut sign: impl FnMut(&str, &str) -> char) -> Grid {
        let rows = self.rows.iter().map(|(row, signs)| {
            let pairs = self.columns.iter().zip(signs);
            let mapped = pairs
                .map(|(c, s)| if *s == '.' { '.' } else { sign(row, c) })
                .collect();
            (row.clone(), mapped)
        });
        Grid {
            columns: self.columns.clone(),
            rows: rows.collect(),
        }
    }

    /// As text, columns aligned; `mark` gives what stands behind a sign, a space or a flag.
    pub fn render(&self, mark: impl Fn(&str, &str) -> char) -> String {
        let first = self
            .rows
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or(0);
        let widths: Vec<usize> = self.columns.iter().map(|name| name.len().max(2)).collect();
        let mut text = format!("{:first$}", "from");
        for (name, width) in self.columns.iter().zip(&widths) {
            text.push_str(&format!("  {name:width$}"));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        for (row, signs) in &self.rows {
            let mut line = format!("{row:first$}");
            for ((column, sign), width) in self.columns.iter().zip(signs).zip(&widths) {
                let cell = format!("{sign}{}", mark(row, column));
                line.push_str(&format!("  {cell:width$}"));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

impl TryFrom<String> for Grid {
    type Error = String;

    fn try_from(text: String) -> Result<Grid, String> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let head = lines
            .next()
            .ok_or("a matrix needs a line of column names")?;
        let mut columns: Vec<String> = head.split_whitespace().map(str::to_owned).collect();
        if columns.is_empty() || columns.remove(0) != "from" {
            return Err("a matrix begins with `from` and the names of the columns".into());
        }
        let mut rows = Vec::new();
        for line in lines {
            let mut words = line.split_whitespace();
            let name = words.next().unwrap_or_default().to_owned();
            let signs: Vec<char> = words
                .map(|word| match word {
                    "+" | "-" | "?" | "." => Ok(word.chars().next().unwrap_or('.')),
                    other => Err(format!("row {name}: {other:?} is none of + - ? .")),
                })
                .collect::<Result<_, _>>()?;
            if signs.len() != columns.len() {
                let (got, want) = (signs.len(), columns.len());
                return Err(format!("row {name} has {got} signs for {want} columns"));
            }
            rows.push((name, signs));
        }
        if rows.is_empty() {
            return Err("a matrix needs at least one row".into());
        }
        Ok(Grid { columns, rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let text = "from  bb1 web\nbb1   .   +\nflask -   ?\n";
        let grid = Grid::try_from(text.to_owned()).unwrap();
        assert_eq!(grid.at("flask", "web"), Some('?'));
        assert_eq!(grid.cells().count(), 3);
        let again = Grid::try_from(grid.render(|_, _| ' ')).unwrap();
        assert_eq!(again, grid);
    }

    #[test]
    fn ragged_rows_and_unknown_signs_are_refused() {
        assert!(
            Grid::try_from("from A B\nA +".to_owned())
                .unwrap_err()
                .contains("1 signs for 2")
        );
        assert!(
            Grid::try_from("from A\nA yes".to_owned())
                .unwrap_err()
                .contains("none of")
        );
        assert!(Grid::try_from("from A".to_owned()).is_err());
    }
}
