//! The SQL that the stand-ins' databases know: read into [`Statement`]s.
//!
//! Bounded by the length of a statement, which the protocols bound; it nests nowhere.

use super::tokens::{SyntaxError, Token, tokens};

/// A value as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literal {
    /// `NULL` or `DEFAULT`.
    Null,
    /// A string or a number.
    Text(String),
}

/// What a `SELECT` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// `*`.
    All,
    /// `COUNT(*)`.
    Count,
    /// A column.
    Column(String),
    /// A value.
    Literal(Literal),
    /// `NAME()`, in capitals.
    Function(String),
    /// `@@NAME`, without scope.
    Variable(String),
}

/// `COLUMN = VALUE`.
pub type Condition = (String, Literal);

/// A table, perhaps with its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    /// The database; else the one in use.
    pub database: Option<String>,
    /// The table.
    pub table: String,
}

/// A column of a new table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDefinition {
    /// Name.
    pub name: String,
    /// Type as written, in small letters.
    pub kind: String,
    /// Numbers itself.
    pub counts: bool,
}

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// `SELECT`.
    Select {
        /// What, and under which name.
        what: Vec<(Expression, String)>,
        /// From where.
        from: Option<TableName>,
        /// Which.
        only: Option<Condition>,
        /// By which column, and whether downwards.
        order: Option<(String, bool)>,
        /// How many at most.
        limit: Option<usize>,
    },
    /// `INSERT`.
    Insert {
        /// Where.
        table: TableName,
        /// Named columns; else all in order.
        columns: Vec<String>,
        /// Rows.
        rows: Vec<Vec<Literal>>,
    },
    /// `DELETE`.
    Delete {
        /// Where.
        table: TableName,
        /// Which.
        only: Option<Condition>,
    },
    /// `CREATE TABLE`.
    CreateTable {
        /// Name.
        table: TableName,
        /// Columns.
        columns: Vec<ColumnDefinition>,
        /// `IF NOT EXISTS`.
        if_missing: bool,
    },
    /// `DROP TABLE`.
    DropTable {
        /// Name.
        table: TableName,
        /// `IF EXISTS`.
        if_there: bool,
    },
    /// `CREATE DATABASE`.
    CreateDatabase {
        /// Name.
        name: String,
        /// `IF NOT EXISTS`.
        if_missing: bool,
    },
    /// `DROP DATABASE`.
    DropDatabase {
        /// Name.
        name: String,
        /// `IF EXISTS`.
        if_there: bool,
    },
    /// `USE`.
    Use(String),
    /// `SHOW DATABASES`.
    ShowDatabases,
    /// `SHOW TABLES`.
    ShowTables(Option<String>),
    /// `DESCRIBE`.
    Describe(TableName),
    /// `SET`, `BEGIN`, `COMMIT` and the like: every statement stands by itself here.
    Nothing,
}

/// Reads one statement; what is behind its semicolon must be empty.
pub fn parse(text: &str) -> Result<Statement, SyntaxError> {
    let tokens = tokens(text)?;
    let mut reader = Reader {
        text,
        tokens,
        at: 0,
    };
    let statement = reader.statement()?;
    reader.symbol(';');
    match reader.at == reader.tokens.len() {
        true => Ok(statement),
        false => Err(reader.wrong()),
    }
}

struct Reader<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token)>,
    at: usize,
}

type Parsed<T> = Result<T, SyntaxError>;

impl Reader<'_> {
    fn wrong(&self) -> SyntaxError {
        let at = self
            .tokens
            .get(self.at)
            .map_or(self.text.len(), |(at, _)| *at);
        SyntaxError(self.text[at..].to_owned())
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    /// Takes these words if they come.
    fn words(&mut self, words: &str) -> bool {
        let wanted: Vec<&str> = words.split(' ').collect();
        let here = wanted.iter().enumerate().all(|(step, word)| {
            let token = self.tokens.get(self.at + step).map(|(_, token)| token);
            matches!(token, Some(Token::Word(found)) if found.eq_ignore_ascii_case(word))
        });
        if here {
            self.at += wanted.len();
        }
        here
    }

    fn symbol(&mut self, symbol: char) -> bool {
        let here = self.peek() == Some(&Token::Symbol(symbol));
        self.at += usize::from(here);
        here
    }

    fn need(&mut self, symbol: char) -> Parsed<()> {
        match self.symbol(symbol) {
            true => Ok(()),
            false => Err(self.wrong()),
        }
    }

    fn name(&mut self) -> Parsed<String> {
        let name = match self.peek() {
            Some(Token::Word(name) | Token::Quoted(name)) => name.clone(),
            _ => return Err(self.wrong()),
        };
        self.at += 1;
        Ok(name)
    }

    fn table(&mut self) -> Parsed<TableName> {
        let first = self.name()?;
        Ok(match self.symbol('.') {
            true => TableName {
                database: Some(first),
                table: self.name()?,
            },
            false => TableName {
                database: None,
                table: first,
            },
        })
    }

    fn literal(&mut self) -> Parsed<Literal> {
        if self.words("NULL") || self.words("DEFAULT") {
            return Ok(Literal::Null);
        }
        let sign = if self.symbol('-') { "-" } else { "" };
        let literal = match self.peek() {
            Some(Token::Number(text)) => Literal::Text(format!("{sign}{text}")),
            Some(Token::Text(text)) if sign.is_empty() => Literal::Text(text.clone()),
            _ => return Err(self.wrong()),
        };
        self.at += 1;
        Ok(literal)
    }

    /// `(A, B, …)`.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        self.need('(')?;
        let mut items = vec![item(self)?];
        while self.symbol(',') {
            items.push(item(self)?);
        }
        self.need(')')?;
        Ok(items)
    }

    fn statement(&mut self) -> Parsed<Statement> {
        if self.words("SELECT") {
            return self.select();
        }
        if self.words("INSERT INTO") {
            return self.insert();
        }
        if self.words("DELETE FROM") {
            let (table, only) = (self.table()?, self.condition()?);
            return Ok(Statement::Delete { table, only });
        }
        if self.words("CREATE TABLE") {
            return self.create_table();
        }
        if self.words("CREATE DATABASE") || self.words("CREATE SCHEMA") {
            let if_missing = self.words("IF NOT EXISTS");
            let name = self.name()?;
            return Ok(Statement::CreateDatabase { name, if_missing });
        }
        if self.words("DROP DATABASE") || self.words("DROP SCHEMA") {
            let if_there = self.words("IF EXISTS");
            let name = self.name()?;
            return Ok(Statement::DropDatabase { name, if_there });
        }
        if self.words("DROP TABLE") {
            let if_there = self.words("IF EXISTS");
            let table = self.table()?;
            return Ok(Statement::DropTable { table, if_there });
        }
        if self.words("USE") {
            return Ok(Statement::Use(self.name()?));
        }
        if self.words("SHOW DATABASES") || self.words("SHOW SCHEMAS") {
            return Ok(Statement::ShowDatabases);
        }
        if self.words("SHOW TABLES") || self.words("SHOW FULL TABLES") {
            let from = self.words("FROM") || self.words("IN");
            return Ok(Statement::ShowTables(
                from.then(|| self.name()).transpose()?,
            ));
        }
        if self.words("DESCRIBE") || self.words("DESC") || self.words("SHOW COLUMNS FROM") {
            return Ok(Statement::Describe(self.table()?));
        }
        for word in ["SET", "BEGIN", "START TRANSACTION", "COMMIT", "ROLLBACK"] {
            if self.words(word) {
                self.at = self.tokens.len();
                return Ok(Statement::Nothing);
            }
        }
        Err(self.wrong())
    }

    fn select(&mut self) -> Parsed<Statement> {
        let mut what = vec![self.selected()?];
        while self.symbol(',') {
            what.push(self.selected()?);
        }
        let from = self.words("FROM").then(|| self.table()).transpose()?;
        let only = self.condition()?;
        let mut order = None;
        if self.words("ORDER BY") {
            let column = self.name()?;
            let down = self.words("DESC");
            let _up = !down && self.words("ASC");
            order = Some((column, down));
        }
        let mut limit = None;
        if self.words("LIMIT") {
            let wrong = self.wrong();
            let Literal::Text(number) = self.literal()? else {
                return Err(wrong);
            };
            limit = Some(number.parse().map_err(|_| wrong)?);
        }
        Ok(Statement::Select {
            what,
            from,
            only,
            order,
            limit,
        })
    }

    fn selected(&mut self) -> Parsed<(Expression, String)> {
        let begin = self
            .tokens
            .get(self.at)
            .map_or(self.text.len(), |(at, _)| *at);
        let expression = self.expression()?;
        let end = self
            .tokens
            .get(self.at)
            .map_or(self.text.len(), |(at, _)| *at);
        let written = self.text[begin..end].trim().to_owned();
        let name = match &expression {
            Expression::Column(name) => name.clone(),
            Expression::Literal(Literal::Text(text)) => text.clone(),
            _ => written,
        };
        let named = self.words("AS");
        let alias = named || matches!(self.peek(), Some(Token::Quoted(_)));
        Ok((expression, if alias { self.name()? } else { name }))
    }

    fn expression(&mut self) -> Parsed<Expression> {
        if self.symbol('*') {
            return Ok(Expression::All);
        }
        if self.symbol('@') {
            self.need('@')?;
            let mut name = self.name()?;
            if self.symbol('.') {
                name = self.name()?;
            }
            return Ok(Expression::Variable(name.to_lowercase()));
        }
        if let Ok(literal) = self.literal() {
            return Ok(Expression::Literal(literal));
        }
        let mut name = self.name()?;
        if self.symbol('.') {
            name = self.name()?;
        }
        if !self.symbol('(') {
            return Ok(Expression::Column(name));
        }
        let name = name.to_uppercase();
        if name == "COUNT" {
            if !self.symbol('*') {
                self.expression()?;
            }
            self.need(')')?;
            return Ok(Expression::Count);
        }
        self.need(')')?;
        Ok(Expression::Function(name))
    }

    fn condition(&mut self) -> Parsed<Option<Condition>> {
        if !self.words("WHERE") {
            return Ok(None);
        }
        let column = self.name()?;
        self.need('=')?;
        Ok(Some((column, self.literal()?)))
    }

    fn insert(&mut self) -> Parsed<Statement> {
        let table = self.table()?;
        let columns = match self.peek() {
            Some(Token::Symbol('(')) => self.list(Reader::name)?,
            _ => Vec::new(),
        };
        if !self.words("VALUES") && !self.words("VALUE") {
            return Err(self.wrong());
        }
        let mut rows = vec![self.list(Reader::literal)?];
        while self.symbol(',') {
            rows.push(self.list(Reader::literal)?);
        }
        Ok(Statement::Insert {
            table,
            columns,
            rows,
        })
    }

    fn create_table(&mut self) -> Parsed<Statement> {
        let if_missing = self.words("IF NOT EXISTS");
        let table = self.table()?;
        let columns = self.list(Reader::column)?;
        // Engine, character set and the like change nothing here.
        while self
            .peek()
            .is_some_and(|token| *token != Token::Symbol(';'))
        {
            self.at += 1;
        }
        let columns = columns.into_iter().flatten().collect();
        Ok(Statement::CreateTable {
            table,
            columns,
            if_missing,
        })
    }

    /// A column, or nothing for a key.
    fn column(&mut self) -> Parsed<Option<ColumnDefinition>> {
        let keys = [
            "PRIMARY KEY",
            "UNIQUE",
            "KEY",
            "INDEX",
            "CONSTRAINT",
            "FOREIGN KEY",
        ];
        let is_key = keys.iter().any(|word| self.words(word));
        let name = if is_key { String::new() } else { self.name()? };
        let (begin, mut depth, mut counts) = (self.at, 0, false);
        loop {
            match self.peek() {
                None => return Err(self.wrong()),
                Some(Token::Symbol(',')) if depth == 0 => break,
                Some(Token::Symbol(')')) if depth == 0 => break,
                Some(Token::Symbol('(')) => depth += 1,
                Some(Token::Symbol(')')) => depth -= 1,
                Some(Token::Word(word)) => {
                    let word = word.to_uppercase();
                    counts |= word == "AUTO_INCREMENT" || word == "SERIAL";
                }
                Some(_) => {}
            }
            self.at += 1;
        }
        if is_key {
            return Ok(None);
        }
        let Some((start, Token::Word(kind))) = self.tokens.get(begin) else {
            return Err(self.wrong());
        };
        // `varchar(255)`: the type with its length.
        let length = match self.tokens.get(begin + 1) {
            Some((_, Token::Symbol('('))) => {
                let close = self.text[*start..].find(')').map(|end| start + end + 1);
                close.map(|end| &self.text[*start..end])
            }
            _ => None,
        };
        let kind = length.unwrap_or(kind).to_lowercase();
        Ok(Some(ColumnDefinition { name, kind, counts }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_read() {
        let select = parse("select title, content from mydb.blogs where id = 1 limit 5;").unwrap();
        let Statement::Select {
            what,
            from,
            only,
            limit,
            ..
        } = select
        else {
            panic!("{select:?}");
        };
        assert_eq!(what.len(), 2);
        assert_eq!(from.unwrap().database.as_deref(), Some("mydb"));
        assert_eq!(only, Some(("id".into(), Literal::Text("1".into()))));
        assert_eq!(limit, Some(5));
        let create = "CREATE TABLE IF NOT EXISTS `blogs` (id INT NOT NULL AUTO_INCREMENT, \
                      title VARCHAR(255), PRIMARY KEY (id)) ENGINE=InnoDB";
        let Ok(Statement::CreateTable {
            columns,
            if_missing: true,
            ..
        }) = parse(create)
        else {
            panic!("{:?}", parse(create));
        };
        let kinds: Vec<_> = columns
            .iter()
            .map(|c| (&c.name[..], &c.kind[..], c.counts))
            .collect();
        assert_eq!(
            kinds,
            [("id", "int", true), ("title", "varchar(255)", false)]
        );
        let insert = parse("INSERT INTO t VALUES ('it''s', \"a\\\"b\", NULL, -1), (1,2,3,4)");
        let Ok(Statement::Insert { rows, .. }) = insert else {
            panic!("{insert:?}");
        };
        assert_eq!(rows[0][0], Literal::Text("it's".into()));
        assert_eq!(rows[0][1], Literal::Text("a\"b".into()));
        assert_eq!(rows[0][3], Literal::Text("-1".into()));
        let variable = parse("select @@version_comment limit 1").unwrap();
        let Statement::Select { what, .. } = variable else {
            panic!();
        };
        let expected = Expression::Variable("version_comment".into());
        assert_eq!(what, [(expected, "@@version_comment".to_owned())]);
        assert_eq!(parse("SET NAMES utf8mb4"), Ok(Statement::Nothing));
        assert_eq!(
            parse("/* x */ SHOW DATABASES -- y"),
            Ok(Statement::ShowDatabases)
        );
    }

    #[test]
    fn what_is_not_understood_is_pointed_at() {
        let rest = |text: &str| parse(text).unwrap_err().0;
        assert_eq!(rest("SELECT 1 FROM t JOIN u"), "JOIN u");
        assert_eq!(rest("UPDATE t SET a=1"), "UPDATE t SET a=1");
        assert_eq!(rest("SELECT 1; SELECT 2"), "SELECT 2");
        assert_eq!(rest("SELECT 'x"), "'x");
        assert_eq!(rest("CREATE TABLE t (a"), "");
        assert_eq!(rest(""), "");
    }
}
