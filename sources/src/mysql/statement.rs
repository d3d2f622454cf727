//! What a statement in the log means for tables, as far as a feed must know: which tables it changes the form of,
//! empties or removes, and whether it changes rows that the log does not show.
//!
//! It is not a parser of SQL: it looks at the first words and at names where they are expected. What it does not know
//! is [`Statement::Other`] only if it can't change rows of tables.

use super::checkpoint::Name;

/// What a statement does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    Begin,
    Commit,
    Rollback,
    /// A part of the transaction may have been taken back.
    RollbackTo,
    /// `XA START`, `XA END`: the frame of a prepared transaction.
    XaFrame,
    /// With the transaction's name as in [`super::event::Begin::prepares`].
    XaCommit(String),
    XaRollback(String),
    /// Rows of these tables are gone.
    Truncate(Vec<Name>),
    /// These tables are gone.
    Drop(Vec<Name>),
    DropDatabase(String),
    /// The tables may look otherwise; `rows` says that rows may have changed too, without a trace in the log.
    Alter {
        table: Name,
        rows: bool,
        renamed: Option<Name>,
    },
    /// Pairs of the old and the new name.
    Rename(Vec<(Name, Name)>),
    /// `replaced` says that a table of that name may have been dropped first; `more` that rows follow in the transaction.
    Create {
        table: Name,
        replaced: bool,
        more: bool,
    },
    /// Rows were changed by the statement itself, which was logged instead of them.
    Rows,
    Other,
}

/// Reads a statement; `database` is the one that unqualified names are in.
pub(super) fn read(database: &str, text: &str) -> Statement {
    let mut words = Words { rest: text, database };
    match words.keyword().as_str() {
        "BEGIN" => Statement::Begin,
        "COMMIT" => Statement::Commit,
        "ROLLBACK" => match words.keyword().as_str() {
            "TO" => Statement::RollbackTo,
            "WORK" if words.keyword() == "TO" => Statement::RollbackTo,
            _ => Statement::Rollback,
        },
        "XA" => match words.keyword().as_str() {
            "COMMIT" => Statement::XaCommit(words.xid()),
            "ROLLBACK" => Statement::XaRollback(words.xid()),
            _ => Statement::XaFrame,
        },
        "TRUNCATE" => {
            words.skip(&["TABLE"]);
            words.name().map_or(Statement::Other, |name| Statement::Truncate(vec![name]))
        }
        "DROP" => words.drop(),
        "RENAME" => words.rename(),
        "ALTER" => words.alter(),
        "CREATE" => words.create(),
        // A table in memory is empty after a restart, and the server says so in this way.
        "DELETE" => words.delete(),
        "INSERT" | "UPDATE" | "REPLACE" | "LOAD" | "WITH" | "CALL" | "DO" | "SELECT" | "IMPORT" => Statement::Rows,
        _ => Statement::Other,
    }
}

/// The rest of a statement.
struct Words<'a> {
    rest: &'a str,
    database: &'a str,
}

impl Words<'_> {
    /// Passes white space and comments; what the server executes in `/*! */` is not passed but for its frame.
    fn blank(&mut self) {
        loop {
            let rest = self.rest.trim_start();
            self.rest = rest;
            if let Some(comment) = rest.strip_prefix("/*") {
                let executed = comment.strip_prefix("M!").or_else(|| comment.strip_prefix('!'));
                self.rest = match executed {
                    Some(inside) => inside.trim_start_matches(|c: char| c.is_ascii_digit()),
                    None => comment.split_once("*/").map_or("", |(_, after)| after),
                };
            } else if let Some(after) = rest.strip_prefix("*/") {
                self.rest = after;
            } else if rest.starts_with('#') || rest.starts_with("-- ") || rest.starts_with("--\n") {
                self.rest = rest.split_once('\n').map_or("", |(_, after)| after);
            } else {
                return;
            }
        }
    }

    /// The next word in upper case; empty if there is none here.
    fn keyword(&mut self) -> String {
        self.blank();
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_ascii_uppercase()
    }

    /// Passes these words wherever they come next.
    fn skip(&mut self, words: &[&str]) {
        loop {
            let before = self.rest;
            let word = self.keyword();
            if word.is_empty() || !words.contains(&word.as_str()) {
                self.rest = before;
                return;
            }
        }
    }

    fn punctuation(&mut self, mark: char) -> bool {
        self.blank();
        match self.rest.strip_prefix(mark) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn identifier(&mut self) -> Option<String> {
        self.blank();
        for quote in ['`', '"'] {
            if let Some(inside) = self.rest.strip_prefix(quote) {
                let mut name = String::new();
                let mut characters = inside.char_indices().peekable();
                while let Some((at, character)) = characters.next() {
                    if character != quote {
                        name.push(character);
                    } else if characters.next_if(|&(_, next)| next == quote).is_some() {
                        name.push(quote);
                    } else {
                        self.rest = &inside[at + 1..];
                        return Some(name);
                    }
                }
                return None;
            }
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || c as u32 >= 0x80;
        let end = self.rest.find(|c: char| !plain(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!name.is_empty()).then(|| name.to_owned())
    }

    fn name(&mut self) -> Option<Name> {
        let first = self.identifier()?;
        if self.punctuation('.') {
            return Some((first, self.identifier()?));
        }
        Some((self.database.to_owned(), first))
    }

    fn names(&mut self) -> Vec<Name> {
        let mut names = Vec::new();
        while let Some(name) = self.name() {
            names.push(name);
            if !self.punctuation(',') {
                break;
            }
        }
        names
    }

    /// The rest as the name of an XA transaction: without white space, as the log writes it.
    fn xid(&mut self) -> String {
        self.rest.chars().filter(|c| !c.is_whitespace()).take_while(|&c| c != ';').collect()
    }

    fn drop(&mut self) -> Statement {
        match self.keyword().as_str() {
            "TABLE" | "TABLES" => {
                self.skip(&["IF", "EXISTS"]);
                Statement::Drop(self.names())
            }
            // A temporary table is one session's own and never captured.
            "DATABASE" | "SCHEMA" => {
                self.skip(&["IF", "EXISTS"]);
                self.identifier().map_or(Statement::Other, Statement::DropDatabase)
            }
            // An index may be the key that was captured.
            "INDEX" => self.index(),
            _ => Statement::Other,
        }
    }

    /// `INDEX name … ON table`.
    fn index(&mut self) -> Statement {
        self.skip(&["IF", "NOT", "EXISTS"]);
        self.identifier();
        while !self.rest.is_empty() {
            if self.keyword() == "ON" {
                let name = self.name();
                return name.map_or(Statement::Other, |table| Statement::Alter { table, rows: false, renamed: None });
            }
            let mut characters = self.rest.chars();
            characters.next();
            self.rest = characters.as_str();
        }
        Statement::Other
    }

    fn rename(&mut self) -> Statement {
        if !matches!(self.keyword().as_str(), "TABLE" | "TABLES") {
            return Statement::Other;
        }
        self.skip(&["IF", "EXISTS"]);
        let mut pairs = Vec::new();
        while let Some(from) = self.name() {
            self.wait();
            if self.keyword() != "TO" {
                break;
            }
            let Some(to) = self.name() else { break };
            pairs.push((from, to));
            if !self.punctuation(',') {
                break;
            }
        }
        Statement::Rename(pairs)
    }

    /// MariaDB's `WAIT n` and `NOWAIT`.
    fn wait(&mut self) {
        let before = self.rest;
        match self.keyword().as_str() {
            "NOWAIT" => {}
            "WAIT" => {
                self.identifier();
            }
            _ => self.rest = before,
        }
    }

    fn alter(&mut self) -> Statement {
        self.skip(&["ONLINE", "OFFLINE", "IGNORE"]);
        if self.keyword() != "TABLE" {
            return Statement::Other;
        }
        self.skip(&["IF", "EXISTS"]);
        let Some(table) = self.name() else { return Statement::Other };
        self.wait();
        // Partitions come and go with their rows, and their words appear nowhere else at the beginning of a part.
        let mut rows = false;
        let mut renamed = None;
        let mut depth = 0;
        let mut first = true;
        while !self.rest.is_empty() {
            self.blank();
            let before = self.rest;
            if depth == 0 && std::mem::take(&mut first) {
                let word = self.keyword();
                match word.as_str() {
                    "RENAME" => {
                        let plain = self.rest;
                        match self.keyword().as_str() {
                            "COLUMN" | "INDEX" | "KEY" => {}
                            "TO" | "AS" => renamed = self.name(),
                            _ => {
                                self.rest = plain;
                                self.punctuation('=');
                                renamed = self.name();
                            }
                        }
                        continue;
                    }
                    "DROP" | "TRUNCATE" | "EXCHANGE" | "CONVERT" | "DISCARD" | "IMPORT" => {
                        let next = self.keyword();
                        rows |= matches!(next.as_str(), "PARTITION" | "TABLE" | "TABLESPACE");
                        continue;
                    }
                    "" => {}
                    _ => continue,
                }
                self.rest = before;
            }
            let mut characters = self.rest.chars();
            match characters.next() {
                Some('(') => depth += 1,
                Some(')') => depth -= 1,
                Some(',') if depth == 0 => first = true,
                Some(quote @ ('\'' | '"' | '`')) => {
                    while let Some(character) = characters.next() {
                        if character == '\\' && quote != '`' {
                            characters.next();
                        } else if character == quote {
                            break;
                        }
                    }
                }
                _ => {}
            }
            self.rest = characters.as_str();
        }
        Statement::Alter { table, rows, renamed }
    }

    fn create(&mut self) -> Statement {
        let before = self.rest;
        let replaced = self.keyword() == "OR";
        if !replaced {
            self.rest = before;
        }
        self.skip(&["REPLACE", "ONLINE", "OFFLINE"]);
        match self.keyword().as_str() {
            "TABLE" => {
                self.skip(&["IF", "NOT", "EXISTS"]);
                let Some(table) = self.name() else { return Statement::Other };
                let more = self.rest.trim_end().to_ascii_uppercase().ends_with("START TRANSACTION");
                Statement::Create { table, replaced, more }
            }
            "UNIQUE" if self.keyword() == "INDEX" => self.index(),
            _ => Statement::Other,
        }
    }

    fn delete(&mut self) -> Statement {
        if self.keyword() == "FROM"
            && let Some(name) = self.name()
        {
            self.blank();
            if self.rest.is_empty() || self.rest == ";" {
                return Statement::Truncate(vec![name]);
            }
        }
        Statement::Rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(a: &str, b: &str) -> Name {
        (a.to_owned(), b.to_owned())
    }

    fn of(text: &str) -> Statement {
        read("d", text)
    }

    #[test]
    fn names_are_found_however_they_are_written() {
        assert_eq!(of("truncate table `a``b`.`c d`"), Statement::Truncate(vec![name("a`b", "c d")]));
        assert_eq!(of("/* why */ TRUNCATE t -- so"), Statement::Truncate(vec![name("d", "t")]));
        assert_eq!(
            of("DROP TABLE IF EXISTS `d`.`t` , é /* generated by server */"),
            Statement::Drop(vec![name("d", "t"), name("d", "é")])
        );
        assert_eq!(of("DROP TEMPORARY TABLE IF EXISTS t"), Statement::Other);
        assert_eq!(of("DROP /*!40005 TEMPORARY */ TABLE t"), Statement::Other);
        assert_eq!(of("drop database x"), Statement::DropDatabase("x".into()));
    }

    #[test]
    fn a_table_of_another_name_is_told_from_a_column_of_one() {
        let alter = |rows, renamed| Statement::Alter { table: name("d", "t"), rows, renamed };
        assert_eq!(of("alter table t add column c int default 7"), alter(false, None));
        assert_eq!(of("ALTER ONLINE TABLE t RENAME COLUMN a TO b, rename index x to y"), alter(false, None));
        assert_eq!(of("alter table t add c int, rename to e.u"), alter(false, Some(name("e", "u"))));
        assert_eq!(of("alter table t rename u"), alter(false, Some(name("d", "u"))));
        assert_eq!(of("alter table t comment 'x, rename to z'"), alter(false, None));
        assert_eq!(
            of("RENAME TABLE a TO b, d.b WAIT 5 TO `c`"),
            Statement::Rename(vec![(name("d", "a"), name("d", "b")), (name("d", "b"), name("d", "c"))])
        );
    }

    #[test]
    fn partitions_take_their_rows_with_them() {
        for text in [
            "drop partition p0",
            "truncate partition p1",
            "exchange partition p with table u",
            "add c int, drop partition p",
        ] {
            let expected = Statement::Alter { table: name("d", "t"), rows: true, renamed: None };
            assert_eq!(of(&format!("alter table t {text}")), expected, "{text}");
        }
        for text in ["drop column partition_id", "drop index p", "add partition (partition p3 values less than (5))"] {
            let expected = Statement::Alter { table: name("d", "t"), rows: false, renamed: None };
            assert_eq!(of(&format!("alter table t {text}")), expected, "{text}");
        }
    }

    #[test]
    fn statements_that_stand_for_rows_are_known() {
        for text in [
            "insert into t values (1)",
            "UPDATE t SET a=1",
            "delete from t where a=1",
            "load data infile 'x' into table t",
        ] {
            assert_eq!(of(text), Statement::Rows, "{text}");
        }
        assert_eq!(of("DELETE FROM `d`.`mem`"), Statement::Truncate(vec![name("d", "mem")]));
        for text in [
            "grant select on *.* to x",
            "create view v as select 1",
            "analyze table t",
            "flush tables",
            "create user x",
        ] {
            assert_eq!(of(text), Statement::Other, "{text}");
        }
        let created = |replaced, more| Statement::Create { table: name("d", "t"), replaced, more };
        assert_eq!(of("create or replace table t (a int)"), created(true, false));
        assert_eq!(of("create table if not exists t (a int)"), created(false, false));
        assert_eq!(of("CREATE TABLE `t` (`a` int) START TRANSACTION"), created(false, true));
        let expected = Statement::Alter { table: name("d", "t"), rows: false, renamed: None };
        assert_eq!(of("create unique index i using btree on t (a)"), expected);
        assert_eq!(of("drop index `i` on d.t"), expected);
    }

    #[test]
    fn frames_of_transactions_are_known() {
        assert_eq!(of("BEGIN"), Statement::Begin);
        assert_eq!(of("ROLLBACK TO `s`"), Statement::RollbackTo);
        assert_eq!(of("ROLLBACK"), Statement::Rollback);
        assert_eq!(of("XA START X'71',X'',1"), Statement::XaFrame);
        assert_eq!(of("XA COMMIT X'71',X'',1"), Statement::XaCommit("X'71',X'',1".into()));
        assert_eq!(of("XA ROLLBACK X'71', X'', 1"), Statement::XaRollback("X'71',X'',1".into()));
    }
}
