//! Which events a subscription is about: tables, operations, and an expression over the event.
//!
//! The expression (`where`) is in [CEL](https://cel.dev), read by the `cel` crate's parser and evaluated by operations
//! of our own (`expression`, `evaluate`). It sees one event:
//!
//! | variable | what |
//! | --- | --- |
//! | `before`, `after` | the row as it was and as it is; null where there is none |
//! | `table`, `key`, `operation` | strings; `operation` is `insert`, `update`, `delete` or `truncate` |
//! | `sequence`, `timestamp` | integers; the time is in ms since 1970 |
//! | `source` | the name of the source as a string; null for a REST write |
//!
//! and may use
//!
//! | what | how |
//! | --- | --- |
//! | literals | `'text'`, `"text"`, `r'raw'`, `1`, `1u`, `1.5`, `true`, `null`, `['a', 'b']` |
//! | members, items | `after.status`, `after['first name']`, `` after.`first name` ``, `after.tags[0]`, `has(after.status)` |
//! | operators | `== != < <= > >= && \|\| ! ?: in + - * / %` |
//! | texts | `startsWith`, `endsWith`, `contains`, `matches` (a regular expression that is written out) |
//! | lists | `all`, `exists`, `exists_one`, `filter`, `map`, `size` |
//! | conversions | `int`, `uint`, `double`, `string`, `bool`, `dyn` |
//!
//! Rows have no declared types, so two rules go beyond CEL:
//! - **What is missing is null.** That is a member that the row lacks, a member of null, an item beyond the end. What
//!   is computed of null is null; `< <= > >=`, `in` and the tests of texts are false with it; comprehensions over it
//!   have no items; and null counts as false where true or false is needed. So `after.status == 'active'` is false for
//!   a delete, and `before.status != after.status` is true for whatever changed the column, an insert that sets it too.
//!   `has(after.x)` tells a member that is null from one that is missing.
//! - **Numbers are numbers.** JSON does not tell 5 from 5.0. An integer that fits stays exact, from -2^63 to 2^64-1;
//!   any other number is a double. All compare by worth (`1 == 1.0`) and can be computed with each other; with a double
//!   the outcome is one. `/` of two integers drops the remainder.
//!
//! What remains are mistakes that only a row can show (`after.name + 1` of a string, division by zero, a member of a
//! number). They are a [`Verdict::Failed`]: the event is not selected, and whoever asked has to show it.
//!
//! Invariants: judging an event takes bounded work and memory ([`Verdict::Failed`] beyond it), calls itself no deeper
//! than an expression may be nested, and never panics for what a row or an expression says. The crate is not called
//! while events are judged, so a panic in it can end a compilation only.

mod evaluate;
mod expression;
mod image;
mod tables;
#[cfg(test)]
mod tests;
mod value;

use crate::store::{Event, Operation};
use expression::Node;
use tables::Tables;

pub use image::Images;

/// The longest expression, in bytes, unless [`Selection::compile_within`] says otherwise.
pub const MAX_EXPRESSION_BYTES: usize = 4096;

/// A selection, compiled. Any thread may judge with it.
#[derive(Debug)]
pub struct Selection {
    tables: Tables,
    /// One bit for each operation.
    operations: u8,
    condition: Option<Node>,
}

/// What a selection says of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is one of the selection.
    Selected,
    /// Its table is not.
    Table,
    /// Its operation is not.
    Operation,
    /// The expression says no.
    Where,
    /// The expression could not be evaluated, for this reason. It is not selected, which somebody should be told.
    Failed(String),
}

/// Why something is not a selection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// There are too many patterns.
    #[error("more than {most} tables are named")]
    TooManyTables {
        /// The most that may be.
        most: usize,
    },
    /// A pattern is empty or too long.
    #[error("a table name or pattern must be 1 to {most} bytes long: `{pattern}`")]
    PatternLength {
        /// The pattern.
        pattern: String,
        /// The most bytes of a pattern.
        most: usize,
    },
    /// A pattern has characters that no table name has.
    #[error("{pattern:?} matches no table name")]
    PatternOfNoTable {
        /// The pattern.
        pattern: String,
    },
    /// The expression is too long.
    #[error("the expression has {bytes} bytes, and may have {most}")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        most: usize,
    },
    /// The expression is nested too deeply.
    #[error("the expression is nested too deeply; `&&` and `||` may be chained without nesting")]
    TooDeep,
    /// The expression is not one, or says something that cannot be.
    #[error("line {line}, column {column}: {message}")]
    Where {
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// The parser gave up without a reason. A defect of ours, but of no consequence beyond this expression.
    #[error("the expression cannot be parsed")]
    ParserFailed,
    /// The system has no thread to compile with.
    #[error("there is no thread to compile the expression with; try again later")]
    NoThread,
}

impl Selection {
    /// Compiles a selection. `tables` are names in which `*` stands for any run of characters; without any, every table
    /// is selected, and without `operations` every operation. Takes up to some ms, and a thread for that time.
    pub fn compile(
        tables: &[String],
        operations: &[Operation],
        condition: Option<&str>,
    ) -> Result<Self, SelectionError> {
        Self::compile_within(tables, operations, condition, MAX_EXPRESSION_BYTES)
    }

    /// The same, with another limit on the length of the expression.
    pub fn compile_within(
        tables: &[String],
        operations: &[Operation],
        condition: Option<&str>,
        max_bytes: usize,
    ) -> Result<Self, SelectionError> {
        let tables = Tables::compile(tables)?;
        let bits = operations.iter().fold(0, |bits, &operation| bits | bit(operation));
        let condition = match condition {
            Some(text) if text.len() > max_bytes => {
                return Err(SelectionError::TooLong { bytes: text.len(), most: max_bytes });
            }
            Some(text) => Some(expression::compile(text)?),
            None => None,
        };
        Ok(Self { tables, operations: if bits == 0 { u8::MAX } else { bits }, condition })
    }

    /// Whether events of a table can be selected at all.
    #[must_use]
    pub fn selects_table(&self, table: &std::sync::Arc<str>) -> bool {
        self.tables.match_table(table)
    }

    /// Judges an event. `images` are those of this event, and of no other: they are filled when an expression asks for
    /// them, so that the next selection finds them parsed.
    #[must_use]
    pub fn judge(&self, event: &Event, images: &Images) -> Verdict {
        if self.operations & bit(event.write.operation) == 0 {
            // The table is named first if it is not selected either: that is what a person looks for first.
            return if self.tables.match_table(&event.write.table) { Verdict::Operation } else { Verdict::Table };
        }
        if !self.tables.match_table(&event.write.table) {
            return Verdict::Table;
        }
        let Some(condition) = &self.condition else { return Verdict::Selected };
        match evaluate::holds(condition, event, images) {
            Ok(true) => Verdict::Selected,
            Ok(false) => Verdict::Where,
            Err(failure) => Verdict::Failed(failure.into_message()),
        }
    }
}

fn bit(operation: Operation) -> u8 {
    1 << operation as u8
}
