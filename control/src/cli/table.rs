//! Tables and ages in kubectl's form.

/// Rows under a header, columns as wide as their widest cell and three spaces apart.
#[derive(Debug, Default)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column names, which kubectl prints in capitals.
    pub fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Table {
        Table {
            header: header.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; cells beyond the header's count are printed without a name.
    pub fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Puts columns before the one with that index; every row has as many `cells`.
    pub fn insert_columns<S: Into<String>>(
        &mut self,
        at: usize,
        names: impl IntoIterator<Item = S>,
        cells: Vec<Vec<String>>,
    ) {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let at = at.min(self.header.len());
        self.header.splice(at..at, names);
        for (row, cells) in self.rows.iter_mut().zip(cells) {
            let at = at.min(row.len());
            row.splice(at..at, cells);
        }
    }

    /// Puts what `cell` makes of a cell, given its row's number, in its place.
    pub fn map_column(&mut self, at: usize, cell: impl Fn(usize, &str) -> String) {
        for (number, row) in self.rows.iter_mut().enumerate() {
            if let Some(old) = row.get_mut(at) {
                *old = cell(number, old);
            }
        }
    }

    /// Number of columns that have a name.
    pub fn columns(&self) -> usize {
        self.header.len()
    }

    /// The table as text; without the header if `headers` is false.
    pub fn render(&self, headers: bool) -> String {
        self.render_below(headers, &mut Vec::new())
    }

    /// As [`Table::render`], with columns at least as wide as those printed before, which `widths`
    /// remembers: rows of a watch stay below one another.
    pub fn render_below(&self, headers: bool, widths: &mut Vec<usize>) -> String {
        let header = headers.then_some(&self.header);
        let shown: Vec<&Vec<String>> = header.into_iter().chain(&self.rows).collect();
        for row in &shown {
            widths.resize(widths.len().max(row.len()), 0);
            for (known, cell) in widths.iter_mut().zip(row.iter()) {
                *known = (*known).max(width(cell));
            }
        }
        let mut text = String::new();
        for row in shown {
            for (c, cell) in row.iter().enumerate() {
                text.push_str(cell);
                if c + 1 < row.len() {
                    let padding = widths[c].saturating_sub(width(cell)) + 3;
                    text.extend(std::iter::repeat_n(' ', padding));
                }
            }
            text.push('\n');
        }
        text
    }
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

/// An age in kubectl's short form (apimachinery's `duration.HumanDuration`).
pub fn human_duration(seconds: i64) -> String {
    let pair = |whole: i64, unit: char, part: i64, part_unit: char| {
        if part == 0 {
            format!("{whole}{unit}")
        } else {
            format!("{whole}{unit}{part}{part_unit}")
        }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        _ if seconds < 120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => pair(hours / 24, 'd', hours % 24, 'h'),
        _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        _ if hours < 24 * 365 * 8 => pair(hours / 24 / 365, 'y', hours / 24 % 365, 'd'),
        _ => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_three_spaces_apart_and_the_last_is_not_padded() {
        let mut table = Table::new(["NAME", "AGE"]);
        table.push(vec!["a-long-name".into(), "5s".into()]);
        table.push(vec!["b".into(), "2m".into()]);
        assert_eq!(
            table.render(true),
            "NAME          AGE\na-long-name   5s\nb             2m\n"
        );
        assert_eq!(table.render(false), "a-long-name   5s\nb             2m\n");
    }

    #[test]
    fn columns_can_be_put_in_between() {
        let mut table = Table::new(["NAME", "LABELS"]);
        table.push(vec!["a".into(), "x=y".into()]);
        table.insert_columns(1, ["HITS"], vec![vec!["7".into()]]);
        assert_eq!(
            table.render(true),
            "NAME   HITS   LABELS\na      7      x=y\n"
        );
    }

    #[test]
    fn durations_as_apimachinery_prints_them() {
        let cases = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (8 * 3600 + 60, "8h"),
            (47 * 3600, "47h"),
            (50 * 3600, "2d2h"),
            (8 * 86400, "8d"),
            (730 * 86400, "2y"),
            (731 * 86400, "2y1d"),
            (3650 * 86400, "10y"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(human_duration(seconds), expected, "{seconds}");
        }
    }
}
