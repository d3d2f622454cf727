//! What a statement in the log means for tables, as far as a feed must know: which tables it changes the form of,
//! empties or removes, and whether it changes rows that the log does not show.
//!
//! It is not a parser of SQL: it looks at the first words and at names where they are expected. What it does not know
//! is [`Statement::Other`] only if it can't change rows of tables.

use super::alter::{self, Alter};
use super::checkpoint::Name;
use super::words::Words;
use super::writes::{self, Writes};

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
    Alter(Alter),
    /// Pairs of the old and the new name.
    Rename(Vec<(Name, Name)>),
    /// A table is made. `new` says that none of that name was there, or is there any more; `more` that rows follow in
    /// the transaction.
    Create {
        table: Name,
        new: bool,
        more: bool,
    },
    /// Rows were changed by the statement itself, which was logged instead of them.
    Rows(Writes),
    Other,
}

/// Reads a statement; `database` is the one that unqualified names are in.
pub(super) fn read(database: &str, text: &str) -> Statement {
    one(Words { rest: text, database })
}

fn one(mut words: Words<'_>) -> Statement {
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
        "ALTER" => alter::read(&mut words).map_or(Statement::Other, Statement::Alter),
        "CREATE" => words.create(),
        // A table in memory is empty after a restart, and the server says so in this way.
        "DELETE" => words.delete(),
        word @ ("INSERT" | "UPDATE" | "REPLACE" | "LOAD" | "WITH" | "CALL" | "DO" | "SELECT" | "IMPORT") => {
            Statement::Rows(writes::read(word, &mut words))
        }
        "SET" => words.for_statement(),
        _ => Statement::Other,
    }
}

impl Words<'_> {
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
                let alter = name.map(|table| Alter { table, ..Alter::default() });
                return alter.map_or(Statement::Other, Statement::Alter);
            }
            self.pass();
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

    fn create(&mut self) -> Statement {
        let before = self.rest;
        let replaced = self.keyword() == "OR";
        if !replaced {
            self.rest = before;
        }
        self.skip(&["REPLACE", "ONLINE", "OFFLINE"]);
        match self.keyword().as_str() {
            "TABLE" => {
                let conditional = self.peek() == "IF";
                self.skip(&["IF", "NOT", "EXISTS"]);
                let Some(table) = self.name() else { return Statement::Other };
                let more = self.rest.trim_end().to_ascii_uppercase().ends_with("START TRANSACTION");
                Statement::Create { table, new: replaced || !conditional, more }
            }
            "UNIQUE" | "FULLTEXT" | "SPATIAL" if self.keyword() == "INDEX" => self.index(),
            // It may replace one that was the key.
            "INDEX" => self.index(),
            _ => Statement::Other,
        }
    }

    /// `SET STATEMENT variable = value, … FOR statement`; any other SET changes nothing.
    fn for_statement(&mut self) -> Statement {
        if self.keyword() != "STATEMENT" {
            return Statement::Other;
        }
        let mut depth = 0;
        while !self.rest.is_empty() {
            let before = self.rest.len();
            if self.keyword() == "FOR" && depth == 0 {
                return one(Words { rest: self.rest, database: self.database });
            }
            if self.rest.len() == before || !self.rest.is_empty() {
                match self.pass() {
                    Some('(') => depth += 1,
                    Some(')') => depth -= 1,
                    _ => {}
                }
            }
        }
        Statement::Other
    }

    fn delete(&mut self) -> Statement {
        let before = self.rest;
        if self.keyword() == "FROM"
            && let Some(name) = self.name()
        {
            self.blank();
            if self.rest.is_empty() || self.rest == ";" {
                return Statement::Truncate(vec![name]);
            }
        }
        self.rest = before;
        Statement::Rows(writes::read("DELETE", self))
    }
}

#[cfg(test)]
mod tests {
    use super::super::alter::Beside;
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

    fn altered(text: &str) -> Alter {
        match of(&format!("alter table t {text}")) {
            Statement::Alter(alter) => alter,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_table_of_another_name_is_told_from_a_column_of_one() {
        let renamed = |text| altered(text).renamed;
        assert_eq!(renamed("RENAME COLUMN a TO b, rename index x to y"), None);
        assert_eq!(renamed("add c int, rename to e.u"), Some(name("e", "u")));
        assert_eq!(renamed("rename u"), Some(name("d", "u")));
        assert_eq!(renamed("comment 'x, rename to z'"), None);
        assert_eq!(
            of("RENAME TABLE a TO b, d.b WAIT 5 TO `c`"),
            Statement::Rename(vec![(name("d", "a"), name("d", "b")), (name("d", "b"), name("d", "c"))])
        );
    }

    #[test]
    fn what_changes_rows_without_a_trace_is_told_from_what_does_not() {
        for text in [
            "add column c int default 7",
            "add (a int, b int)",
            "rename column a to b",
            "drop partition p0",
            "truncate partition p1",
            "add index (a), drop partition p",
            "modify c bigint",
            "add index (a), change a b int",
            "drop column partition_id",
            "convert to character set utf8mb4",
            "drop system versioning",
            "add system versioning",
            "import tablespace",
            "engine=blackhole",
        ] {
            assert!(altered(text).rows, "{text}");
        }
        for text in [
            "",
            ";",
            "drop index p",
            "add partition (partition p3 values less than (5))",
            "add unique (a, b), drop primary key",
            "engine = InnoDB",
            "alter c set default 5, force",
            "rename index a to b",
            "comment='a, drop partition'",
        ] {
            assert!(!altered(text).rows, "{text}");
        }
        assert!(altered("drop foreign key x").foreign);
        let beside = |text| altered(text).others;
        assert_eq!(beside("exchange partition p with table u"), [Beside::Exchanged(name("d", "u"))]);
        assert_eq!(beside("convert partition `p` to table e.u"), [Beside::Made(name("e", "u"))]);
        assert_eq!(beside("convert table u to partition p values less than (5)"), [Beside::TakenIn(name("d", "u"))]);
    }

    #[test]
    fn statements_that_stand_for_rows_are_known() {
        for text in [
            "insert into t values (1)",
            "UPDATE t SET a=1",
            "delete from t where a=1",
            "load data infile 'x' into table t",
        ] {
            assert_eq!(of(text), Statement::Rows(Writes::Tables(vec![name("d", "t")])), "{text}");
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
        let created = |new, more| Statement::Create { table: name("d", "t"), new, more };
        assert_eq!(of("create or replace table t (a int)"), created(true, false));
        assert_eq!(of("create table if not exists t (a int)"), created(false, false));
        assert_eq!(of("CREATE TABLE `t` (`a` int) START TRANSACTION"), created(true, true));
        let expected = Statement::Alter(Alter { table: name("d", "t"), ..Alter::default() });
        assert_eq!(of("create unique index i using btree on t (a)"), expected);
        assert_eq!(of("create or replace index i on t (a)"), expected);
        assert_eq!(of("drop index `i` on d.t"), expected);
    }

    #[test]
    fn tables_that_are_written_are_told_from_those_that_are_read() {
        let writes = |text: &str| match of(text) {
            Statement::Rows(Writes::Tables(names)) => names.into_iter().map(|(_, relation)| relation).collect(),
            other => vec![format!("{other:?}")],
        };
        assert_eq!(writes("REPLACE INTO p.checksums (tbl) SELECT 'o' FROM shop.o"), ["checksums"]);
        assert_eq!(writes("INSERT LOW_PRIORITY IGNORE INTO `a b` VALUES (1)"), ["a b"]);
        assert_eq!(writes("update ignore t as x set x.a = (select max(b) from u)"), ["t"]);
        assert_eq!(writes("update t1 a left join e.t2 on a.x = t2.y set a.z = 1"), ["t1", "t2"]);
        assert_eq!(writes("delete a from t1 as a, t2 where a.x = t2.x"), ["a", "t1", "t2"]);
        assert_eq!(writes("delete from t1 using t1 join t2 where 1"), ["t1", "t1", "t2"]);
        assert_eq!(writes("load data local infile '/tmp/x' replace into table t fields terminated by ','"), ["t"]);
        assert!(writes("select f()").is_empty());
        assert_eq!(of("with x as (select 1) delete from t"), Statement::Rows(Writes::Unknown));
    }

    #[test]
    fn what_is_said_for_one_statement_is_passed_over() {
        let expected = Statement::Truncate(vec![name("d", "t")]);
        assert_eq!(of("SET STATEMENT max_statement_time=60, sql_mode = 'x for y' FOR TRUNCATE TABLE t"), expected);
        assert_eq!(of("set statement a=(select 1 for update) for /* so */ truncate t"), expected);
        assert_eq!(of("/*!50000 TRUNCATE */ TABLE t"), expected);
        assert_eq!(of("set password for x = 'y'"), Statement::Other);
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
