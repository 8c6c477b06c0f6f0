//! One table.

use super::sql::{ColumnDefinition, Condition, Expression, Literal};
use super::{Failure, Outcome, ROWS, Session, Value, constant, fail, full, unknown_column};

/// A table.
#[derive(Debug, Default)]
pub struct Table {
    /// Columns.
    pub columns: Vec<ColumnDefinition>,
    /// Rows.
    pub rows: Vec<Vec<Value>>,
    /// The next number of a column that counts.
    pub next: u64,
}

impl Table {
    fn position(&self, name: &str) -> Result<usize, Failure> {
        let named = |column: &ColumnDefinition| column.name.eq_ignore_ascii_case(name);
        match self.columns.iter().position(named) {
            Some(at) => Ok(at),
            None => unknown_column(name),
        }
    }

    /// Its columns.
    pub fn describe(&self) -> Outcome {
        let columns = ["Field", "Type", "Null", "Key", "Default", "Extra"];
        let row = |column: &ColumnDefinition| {
            let extra = if column.counts { "auto_increment" } else { "" };
            let texts = [&column.name, &column.kind, "YES", "", "", extra];
            texts.map(|text| Some(text.to_owned())).to_vec()
        };
        Outcome::Rows {
            columns: columns.map(str::to_owned).to_vec(),
            rows: self.columns.iter().map(row).collect(),
        }
    }

    /// Adds rows.
    pub fn insert(
        &mut self,
        names: &[String],
        rows: Vec<Vec<Literal>>,
    ) -> Result<Outcome, Failure> {
        let places = match names {
            [] => (0..self.columns.len()).collect(),
            names => {
                let found = names.iter().map(|name| self.position(name));
                found.collect::<Result<Vec<_>, _>>()?
            }
        };
        if let Some(at) = rows.iter().position(|row| row.len() != places.len()) {
            let message = format!("Column count doesn't match value count at row {}", at + 1);
            return fail(1136, "21S01", message);
        }
        if self.rows.len() + rows.len() > ROWS {
            return full("rows", ROWS);
        }
        let count = rows.len() as u64;
        for row in rows {
            let mut values = vec![None; self.columns.len()];
            for (place, literal) in places.iter().zip(row) {
                if let Literal::Text(text) = literal {
                    values[*place] = Some(text);
                }
            }
            for (value, column) in values.iter_mut().zip(&self.columns) {
                if column.counts && value.is_none() {
                    *value = Some(self.next.to_string());
                    self.next += 1;
                }
            }
            self.rows.push(values);
        }
        Ok(Outcome::Changed(count))
    }

    /// Whether a row is asked for.
    fn filter(
        &self,
        only: Option<&Condition>,
    ) -> Result<impl Fn(&[Value]) -> bool + use<>, Failure> {
        let wanted = match only {
            None => None,
            Some((column, literal)) => Some((self.position(column)?, literal.clone())),
        };
        Ok(move |row: &[Value]| match &wanted {
            None => true,
            Some((_, Literal::Null)) => false,
            Some((at, Literal::Text(text))) => row[*at].as_ref() == Some(text),
        })
    }

    /// Removes rows.
    pub fn delete(&mut self, only: Option<&Condition>) -> Result<Outcome, Failure> {
        let matches = self.filter(only)?;
        let before = self.rows.len();
        self.rows.retain(|row| !matches(row));
        Ok(Outcome::Changed((before - self.rows.len()) as u64))
    }

    /// Rows that are asked for.
    pub fn select(
        &self,
        session: &Session,
        what: Vec<(Expression, String)>,
        only: Option<&Condition>,
        order: Option<&(String, bool)>,
        limit: Option<usize>,
    ) -> Result<Outcome, Failure> {
        let matches = self.filter(only)?;
        let mut found: Vec<&Vec<Value>> = self.rows.iter().filter(|row| matches(row)).collect();
        if let Some((column, down)) = order {
            let at = self.position(column)?;
            let number = |value: &Value| value.as_ref()?.parse::<i64>().ok();
            found.sort_by(|one, other| {
                let by_number = number(&one[at]).zip(number(&other[at]));
                let order = match by_number {
                    Some((one, other)) => one.cmp(&other),
                    None => one[at].cmp(&other[at]),
                };
                if *down { order.reverse() } else { order }
            });
        }
        if what
            .iter()
            .any(|(expression, _)| *expression == Expression::Count)
        {
            return Ok(Outcome::Rows {
                columns: vec![what[0].1.clone()],
                rows: vec![vec![Some(found.len().to_string())]],
            });
        }
        let (mut columns, mut picks) = (Vec::new(), Vec::new());
        for (expression, name) in what {
            match expression {
                Expression::All => {
                    for (at, column) in self.columns.iter().enumerate() {
                        columns.push(column.name.clone());
                        picks.push(Ok(at));
                    }
                }
                Expression::Column(column) => {
                    picks.push(Ok(self.position(&column)?));
                    columns.push(name);
                }
                other => {
                    picks.push(Err(constant(session, &other)?));
                    columns.push(name);
                }
            }
        }
        let pick = |row: &Vec<Value>| -> Vec<Value> {
            let values = picks.iter().map(|pick| match pick {
                Ok(at) => row[*at].clone(),
                Err(value) => value.clone(),
            });
            values.collect()
        };
        found.truncate(limit.unwrap_or(usize::MAX));
        let rows = found.into_iter().map(pick).collect();
        Ok(Outcome::Rows { columns, rows })
    }
}
