//! A small database in memory, for the stand-ins of MySQL and PostgreSQL.
//!
//! It keeps what is put into it and answers simple questions: one table at a time, rows by one
//! equality, values as text. Bounds: [`DATABASES`], [`TABLES`], [`COLUMNS`], [`ROWS`].

pub mod sql;
mod table;
mod tokens;

use std::collections::BTreeMap;

use sql::{ColumnDefinition, Expression, Literal, Statement, TableName};
use table::Table;

/// Databases.
pub const DATABASES: usize = 64;
/// Tables of one database.
pub const TABLES: usize = 64;
/// Columns of one table.
pub const COLUMNS: usize = 64;
/// Rows of one table.
pub const ROWS: usize = 10_000;

/// A value; none is NULL.
pub type Value = Option<String>;

/// What a statement yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Rows under names.
    Rows {
        /// Names.
        columns: Vec<String>,
        /// Rows.
        rows: Vec<Vec<Value>>,
    },
    /// So many rows changed.
    Changed(u64),
}

/// Why a statement failed: MySQL's number and SQL's state, which clients look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// MySQL's error number.
    pub number: u16,
    /// SQLSTATE.
    pub state: &'static str,
    /// In MySQL's words.
    pub message: String,
}

/// Who asks, and what functions say of them.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// The database in use.
    pub database: Option<String>,
    /// `USER()`.
    pub user: String,
    /// `CONNECTION_ID()`.
    pub number: u32,
    /// `VERSION()`.
    pub version: String,
}

/// Everything that is kept.
#[derive(Debug, Default)]
pub struct Store {
    databases: BTreeMap<String, BTreeMap<String, Table>>,
}

fn fail<T>(number: u16, state: &'static str, message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure {
        number,
        state,
        message: message.into(),
    })
}

fn full<T>(what: &str, most: usize) -> Result<T, Failure> {
    let message = format!("The table is full: this stand-in keeps at most {most} {what}");
    fail(1114, "HY000", message)
}

impl Store {
    /// With databases of these names.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Store {
        let named = names
            .into_iter()
            .map(|name| (name.to_owned(), BTreeMap::new()));
        Store {
            databases: named.collect(),
        }
    }

    /// Whether there is a database.
    pub fn has(&self, database: &str) -> bool {
        self.databases.contains_key(database)
    }

    /// Runs one statement.
    pub fn run(&mut self, session: &mut Session, text: &str) -> Result<Outcome, Failure> {
        let statement = match sql::parse(text) {
            Ok(statement) => statement,
            Err(_) if text.trim().is_empty() => return fail(1065, "42000", "Query was empty"),
            Err(tokens::SyntaxError(rest)) => {
                let rest: String = rest.chars().take(80).collect();
                let message = format!(
                    "You have an error in your SQL syntax; this stand-in knows simple SELECT, \
                     INSERT, DELETE, CREATE, DROP, USE, SHOW and DESCRIBE: near '{rest}' at line 1"
                );
                return fail(1064, "42000", message);
            }
        };
        self.execute(session, statement)
    }

    fn execute(&mut self, session: &mut Session, statement: Statement) -> Result<Outcome, Failure> {
        match statement {
            Statement::Nothing => Ok(Outcome::Changed(0)),
            Statement::Use(name) => {
                if !self.has(&name) {
                    return fail(1049, "42000", format!("Unknown database '{name}'"));
                }
                session.database = Some(name);
                Ok(Outcome::Changed(0))
            }
            Statement::ShowDatabases => {
                let names = self.databases.keys();
                Ok(one_column("Database", names.cloned()))
            }
            Statement::ShowTables(from) => {
                let name = from.or_else(|| session.database.clone());
                let Some(name) = name else {
                    return fail(1046, "3D000", "No database selected");
                };
                let Some(tables) = self.databases.get(&name) else {
                    return fail(1049, "42000", format!("Unknown database '{name}'"));
                };
                Ok(one_column(
                    &format!("Tables_in_{name}"),
                    tables.keys().cloned(),
                ))
            }
            Statement::Describe(table) => Ok(self.table(session, &table)?.describe()),
            Statement::CreateDatabase { name, if_missing } => {
                if self.has(&name) {
                    let message = format!("Can't create database '{name}'; database exists");
                    return match if_missing {
                        true => Ok(Outcome::Changed(1)),
                        false => fail(1007, "HY000", message),
                    };
                }
                if self.databases.len() >= DATABASES {
                    return full("databases", DATABASES);
                }
                self.databases.insert(name, BTreeMap::new());
                Ok(Outcome::Changed(1))
            }
            Statement::DropDatabase { name, if_there } => match self.databases.remove(&name) {
                Some(tables) => Ok(Outcome::Changed(tables.len() as u64)),
                None if if_there => Ok(Outcome::Changed(0)),
                None => {
                    let message = format!("Can't drop database '{name}'; database doesn't exist");
                    fail(1008, "HY000", message)
                }
            },
            Statement::CreateTable {
                table,
                columns,
                if_missing,
            } => self.create_table(session, &table, columns, if_missing),
            Statement::DropTable { table, if_there } => {
                let (database, name) = self.locate(session, &table)?;
                let tables = self.databases.get_mut(&database);
                match tables.and_then(|tables| tables.remove(&name)) {
                    None if !if_there => {
                        fail(1051, "42S02", format!("Unknown table '{database}.{name}'"))
                    }
                    _ => Ok(Outcome::Changed(0)),
                }
            }
            Statement::Insert {
                table,
                columns,
                rows,
            } => self.table(session, &table)?.insert(&columns, rows),
            Statement::Delete { table, only } => self.table(session, &table)?.delete(only.as_ref()),
            Statement::Select {
                what,
                from,
                only,
                order,
                limit,
            } => match from {
                None => select_without_table(session, what),
                Some(name) => {
                    let found = self.table(session, &name)?;
                    found.select(session, what, only.as_ref(), order.as_ref(), limit)
                }
            },
        }
    }

    fn locate(&self, session: &Session, name: &TableName) -> Result<(String, String), Failure> {
        let database = name.database.clone().or_else(|| session.database.clone());
        let Some(database) = database else {
            return fail(1046, "3D000", "No database selected");
        };
        if !self.has(&database) {
            return fail(1049, "42000", format!("Unknown database '{database}'"));
        }
        Ok((database, name.table.clone()))
    }

    fn table(&mut self, session: &Session, name: &TableName) -> Result<&mut Table, Failure> {
        let (database, table) = self.locate(session, name)?;
        let missing = format!("Table '{database}.{table}' doesn't exist");
        let tables = self.databases.get_mut(&database);
        match tables.and_then(|tables| tables.get_mut(&table)) {
            Some(found) => Ok(found),
            None => fail(1146, "42S02", missing),
        }
    }

    fn create_table(
        &mut self,
        session: &Session,
        name: &TableName,
        columns: Vec<ColumnDefinition>,
        if_missing: bool,
    ) -> Result<Outcome, Failure> {
        let (database, table) = self.locate(session, name)?;
        let tables = self.databases.entry(database).or_default();
        if tables.contains_key(&table) {
            return match if_missing {
                true => Ok(Outcome::Changed(0)),
                false => fail(1050, "42S01", format!("Table '{table}' already exists")),
            };
        }
        if tables.len() >= TABLES {
            return full("tables", TABLES);
        }
        if columns.len() > COLUMNS {
            return full("columns", COLUMNS);
        }
        if columns.is_empty() {
            return fail(1113, "42000", "A table must have at least 1 column");
        }
        let made = Table {
            columns,
            rows: Vec::new(),
            next: 1,
        };
        tables.insert(table, made);
        Ok(Outcome::Changed(0))
    }
}

fn one_column(name: &str, values: impl Iterator<Item = String>) -> Outcome {
    Outcome::Rows {
        columns: vec![name.to_owned()],
        rows: values.map(|value| vec![Some(value)]).collect(),
    }
}

/// What an expression is without a table.
fn constant(session: &Session, expression: &Expression) -> Result<Value, Failure> {
    match expression {
        Expression::Literal(Literal::Null) => Ok(None),
        Expression::Literal(Literal::Text(text)) => Ok(Some(text.clone())),
        Expression::Function(name) => match name.as_str() {
            "VERSION" => Ok(Some(session.version.clone())),
            "DATABASE" | "SCHEMA" | "CURRENT_DATABASE" => Ok(session.database.clone()),
            "USER" | "CURRENT_USER" | "SESSION_USER" => Ok(Some(session.user.clone())),
            "CONNECTION_ID" | "PG_BACKEND_PID" => Ok(Some(session.number.to_string())),
            _ => fail(1305, "42000", format!("FUNCTION {name} does not exist")),
        },
        Expression::Variable(name) => match name.as_str() {
            "version" => Ok(Some(session.version.clone())),
            "version_comment" => Ok(Some("Weir's stand-in for MySQL".into())),
            "autocommit" => Ok(Some("1".into())),
            "max_allowed_packet" => Ok(Some((1 << 20).to_string())),
            "transaction_isolation" | "tx_isolation" => Ok(Some("REPEATABLE-READ".into())),
            "sql_mode" => Ok(Some(String::new())),
            "lower_case_table_names" | "auto_increment_increment" => Ok(Some("1".into())),
            _ => fail(1193, "HY000", format!("Unknown system variable '{name}'")),
        },
        Expression::All => fail(1096, "HY000", "No tables used"),
        Expression::Count => Ok(Some("1".into())),
        Expression::Column(name) => unknown_column(name),
    }
}

fn unknown_column<T>(name: &str) -> Result<T, Failure> {
    fail(
        1054,
        "42S22",
        format!("Unknown column '{name}' in 'field list'"),
    )
}

fn select_without_table(
    session: &Session,
    what: Vec<(Expression, String)>,
) -> Result<Outcome, Failure> {
    let values = what
        .iter()
        .map(|(expression, _)| constant(session, expression));
    let row = values.collect::<Result<_, _>>()?;
    Ok(Outcome::Rows {
        columns: what.into_iter().map(|(_, name)| name).collect(),
        rows: vec![row],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(outcome: Outcome) -> Vec<Vec<String>> {
        let Outcome::Rows { rows, .. } = outcome else {
            panic!("{outcome:?}");
        };
        let text = |value: Value| value.unwrap_or_else(|| "NULL".into());
        rows.into_iter()
            .map(|row| row.into_iter().map(text).collect())
            .collect()
    }

    #[test]
    fn what_is_put_in_comes_out() {
        let mut store = Store::new(["mysql"]);
        let mut session = Session::default();
        let mut run = |text: &str| store.run(&mut session, text);
        assert_eq!(run("SHOW TABLES").unwrap_err().number, 1046);
        run("CREATE DATABASE mydb").unwrap();
        assert_eq!(run("CREATE DATABASE mydb").unwrap_err().number, 1007);
        run("USE mydb").unwrap();
        run("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a TEXT, b TEXT)").unwrap();
        let two = run("INSERT INTO t (a, b) VALUES ('x', '1'), ('y', NULL)").unwrap();
        assert_eq!(two, Outcome::Changed(2));
        assert_eq!(
            rows(run("SELECT * FROM t").unwrap()),
            [["1", "x", "1"], ["2", "y", "NULL"]]
        );
        assert_eq!(
            rows(run("SELECT a FROM t ORDER BY id DESC LIMIT 1").unwrap()),
            [["y"]]
        );
        assert_eq!(
            rows(run("SELECT COUNT(*) FROM mydb.t WHERE a = 'x'").unwrap()),
            [["1"]]
        );
        assert_eq!(
            run("DELETE FROM t WHERE a = 'x'").unwrap(),
            Outcome::Changed(1)
        );
        assert_eq!(rows(run("SELECT b, 7 FROM t").unwrap()), [["NULL", "7"]]);
        for (wrong, number) in [
            ("SELECT z FROM t", 1054),
            ("SELECT * FROM u", 1146),
            ("USE nowhere", 1049),
            ("INSERT INTO t (a) VALUES (1, 2)", 1136),
            ("DROP TABLE u", 1051),
            ("SELECT @@nothing", 1193),
            ("  ", 1065),
            ("UPDATE t SET a = 1", 1064),
        ] {
            assert_eq!(run(wrong).unwrap_err().number, number, "{wrong}");
        }
    }

    #[test]
    fn tables_and_databases_are_bounded() {
        let mut store = Store::default();
        let mut session = Session::default();
        for number in 0..DATABASES {
            store
                .run(&mut session, &format!("CREATE DATABASE d{number}"))
                .unwrap();
        }
        let one_more = store.run(&mut session, "CREATE DATABASE d");
        assert_eq!(one_more.unwrap_err().number, 1114);
        store
            .run(&mut session, "CREATE TABLE d1.t (a INT)")
            .unwrap();
        let values = vec!["(1)"; ROWS].join(",");
        store
            .run(&mut session, &format!("INSERT INTO d1.t VALUES {values}"))
            .unwrap();
        let one_more = store.run(&mut session, "INSERT INTO d1.t VALUES (1)");
        assert_eq!(one_more.unwrap_err().number, 1114);
    }
}
