//! Expressions, read by the CEL crate's parser and made into a closed set of operations of our own.
//!
//! Only the parser of the crate is used. Its evaluator knows no missing members, so `after.status` of a row without
//! one would be an error, and it costs many times as much: contexts are maps of copied values. What is evaluated here
//! is held against it by a property test.
//!
//! Parsing and checking happen on a thread of their own with a large stack: the parser goes as deep as the expression
//! does, in places that its own limit does not see (`a.b.c.d…`), and if it should panic, that thread is all that ends.

use cel::Env;
use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators};
use regex::{Regex, RegexBuilder};

use super::SelectionError;
use super::evaluate::operation_name;
use super::value::{Arithmetic, Value};
use crate::store::Operation;

/// How deep an expression may be nested. What is evaluated calls itself as deep.
const MAX_DEPTH: usize = 64;
/// The nesting that the parser takes, in its own count.
const MAX_PARSER_DEPTH: u16 = 64;
const PARSER_STACK_BYTES: usize = 64 << 20;
/// The most memory that a pattern of `matches` may take, compiled.
const MAX_PATTERN_BYTES: usize = 256 << 10;

/// A variable of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    Before,
    After,
    Table,
    Key,
    Operation,
    Sequence,
    Timestamp,
    Source,
}

const VARIABLES: &[(&str, Variable)] = &[
    ("before", Variable::Before),
    ("after", Variable::After),
    ("table", Variable::Table),
    ("key", Variable::Key),
    ("operation", Variable::Operation),
    ("sequence", Variable::Sequence),
    ("timestamp", Variable::Timestamp),
    ("source", Variable::Source),
];

/// A function of one value, or of two texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    StartsWith,
    EndsWith,
    Contains,
    Int,
    UInt,
    Double,
    Text,
    Bool,
    Dyn,
}

const FUNCTIONS: &[(&str, Function)] = &[
    ("size", Function::Size),
    ("startsWith", Function::StartsWith),
    ("endsWith", Function::EndsWith),
    ("contains", Function::Contains),
    ("int", Function::Int),
    ("uint", Function::UInt),
    ("double", Function::Double),
    ("string", Function::Text),
    ("bool", Function::Bool),
    ("dyn", Function::Dyn),
];

const OTHERS: &str = "matches, has, all, exists, exists_one, filter, map";

impl Function {
    pub(super) fn name(self) -> &'static str {
        FUNCTIONS.iter().find(|(_, function)| *function == self).map_or("", |(name, _)| name)
    }

    /// How many values it takes, the one that it is called on included.
    fn arity(self) -> usize {
        match self {
            Self::StartsWith | Self::EndsWith | Self::Contains => 2,
            _ => 1,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Different,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// An operation of an expression.
#[derive(Debug)]
pub(super) enum Node {
    Constant(Value<'static>),
    Variable(Variable),
    /// The variable of a comprehension, counted from the outermost.
    Local(usize),
    Member(Box<Node>, Box<str>),
    Has(Box<Node>, Box<str>),
    Index(Box<[Node; 2]>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    If(Box<[Node; 3]>),
    Compare(Comparison, Box<[Node; 2]>),
    In(Box<[Node; 2]>),
    Arithmetic(Arithmetic, Box<[Node; 2]>),
    Negate(Box<Node>),
    List(Vec<Node>),
    Call(Function, Vec<Node>),
    Matches(Box<Node>, Regex),
    Fold(Box<Fold>),
}

/// A comprehension: what it goes over, and what is asked of each item.
#[derive(Debug)]
pub(super) enum Fold {
    All(Node, Node),
    Exists(Node, Node),
    ExistsOne(Node, Node),
    Filter(Node, Node),
    /// With a condition, and what is made of the items for which it holds.
    Map(Node, Node, Node),
}

/// What is known of a value before there is an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A member of a row, or whatever else may turn out to be anything.
    Unknown,
    Null,
    Bool,
    Number,
    Text,
    List,
    Map,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::List => "a list",
            Self::Map => "a row",
        }
    }
}

/// Compiles an expression that answers yes or no.
pub(super) fn compile(source: &str) -> Result<Node, SelectionError> {
    let text = source.to_owned();
    let thread = std::thread::Builder::new().name("where".to_owned()).stack_size(PARSER_STACK_BYTES);
    let compiling = thread.spawn(move || compile_here(&text)).map_err(|_| SelectionError::NoThread)?;
    compiling.join().unwrap_or(Err(SelectionError::ParserFailed))
}

fn compile_here(source: &str) -> Result<Node, SelectionError> {
    // Without macros, so that `all` and `has` come as the calls that they are written as.
    let env = Env::default().with_optional_support(false);
    let parser = env.parser().max_recursion_depth(MAX_PARSER_DEPTH).enable_ident_escape_syntax(true);
    let (ast, places) = parser.parse_with_source_info(source).map_err(|errors| {
        let Some(error) = errors.errors.first() else { return SelectionError::ParserFailed };
        // What stops the parser as a whole has no place and tells its reason to whoever looks behind it.
        match &error.source {
            Some(reason) if reason.to_string().contains("Recursion limit") => SelectionError::TooDeep,
            _ => {
                let message = error.msg.trim_start_matches("Syntax error: ");
                syntax(source, error.pos.0.max(1), error.pos.1.max(1), message)
            }
        }
    })?;
    let mut compiler = Compiler { source, places: &places, locals: Vec::new(), depth: 0 };
    let (node, kind) = compiler.node(&ast)?;
    match kind {
        Kind::Bool | Kind::Unknown => Ok(node),
        other => {
            Err(compiler.refuse(&ast, format!("it is {}, but must be true or false for each event", other.name())))
        }
    }
}

fn syntax(source: &str, line: isize, column: isize, message: &str) -> SelectionError {
    let (line, column) = (usize::try_from(line).unwrap_or(1), usize::try_from(column).unwrap_or(1));
    let rest = source.lines().nth(line - 1).unwrap_or_default().chars().skip(column - 1).collect::<String>();
    let rest = rest.trim_start();
    let hint = if rest.starts_with('=') && !rest.starts_with("==") {
        "; equality is written =="
    } else if ["and ", "AND ", "or ", "OR ", "not ", "NOT "].iter().any(|word| rest.starts_with(word)) {
        "; and, or, not are written &&, ||, !"
    } else {
        ""
    };
    let mut message = message.to_owned();
    // The parser lists every token that it would have taken, which helps nobody.
    if let Some(at) = message.find(" expecting {") {
        message.truncate(at);
    }
    message.push_str(hint);
    SelectionError::Where { line, column, message }
}

struct Compiler<'a> {
    source: &'a str,
    places: &'a SourceInfo,
    /// The names of the comprehensions' variables, outermost first.
    locals: Vec<String>,
    depth: usize,
}

type Compiled = Result<(Node, Kind), SelectionError>;

impl Compiler<'_> {
    fn refuse(&self, at: &IdedExpr, message: impl Into<String>) -> SelectionError {
        let offset = self.places.offset_for(at.id).map_or(0, |(start, _)| start as usize);
        let before: String = self.source.chars().take(offset).collect();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        SelectionError::Where { line, column, message: message.into() }
    }

    fn node(&mut self, at: &IdedExpr) -> Compiled {
        if self.depth == MAX_DEPTH {
            return Err(SelectionError::TooDeep);
        }
        self.depth += 1;
        let compiled = self.expression(at);
        self.depth -= 1;
        compiled
    }

    fn expression(&mut self, at: &IdedExpr) -> Compiled {
        match &at.expr {
            Expr::Literal(literal) => self.literal(at, literal),
            Expr::Ident(name) => self.variable(at, name),
            Expr::Select(select) => {
                let (operand, kind) = self.node(&select.operand)?;
                if !matches!(kind, Kind::Unknown | Kind::Map | Kind::Null) {
                    return Err(self.refuse(at, format!("{} has no members", kind.name())));
                }
                Ok((Node::Member(Box::new(operand), select.field.as_str().into()), Kind::Unknown))
            }
            Expr::List(list) => {
                let items = list.elements.iter().map(|item| self.node(item).map(|(node, _)| node));
                let items = items.collect::<Result<Vec<_>, _>>()?;
                // A list of constants is one itself, and need not be made again for every event.
                if items.iter().all(|item| matches!(item, Node::Constant(_))) {
                    let constants = items.into_iter().filter_map(|item| match item {
                        Node::Constant(value) => Some(value),
                        _ => None,
                    });
                    return Ok((Node::Constant(Value::Made(constants.collect())), Kind::List));
                }
                Ok((Node::List(items), Kind::List))
            }
            Expr::Call(call) => self.call(at, call),
            Expr::Map(_) | Expr::Struct(_) => Err(self.refuse(at, "maps and messages cannot be made here")),
            Expr::Comprehension(_) | Expr::Unspecified => Err(self.refuse(at, "it cannot be understood")),
        }
    }

    fn literal(&self, at: &IdedExpr, literal: &LiteralValue) -> Compiled {
        let (value, kind) = match literal {
            LiteralValue::Null => (Value::Null, Kind::Null),
            LiteralValue::Boolean(value) => (Value::Bool(*value.inner()), Kind::Bool),
            LiteralValue::Int(value) => (Value::Int(*value.inner()), Kind::Number),
            LiteralValue::UInt(value) => (Value::UInt(*value.inner()), Kind::Number),
            LiteralValue::Double(value) => (Value::Double(*value.inner()), Kind::Number),
            LiteralValue::String(value) => (Value::Text(value.inner().to_owned().into()), Kind::Text),
            LiteralValue::Bytes(_) => return Err(self.refuse(at, "rows have no bytes; write a string")),
        };
        Ok((Node::Constant(value), kind))
    }

    fn variable(&self, at: &IdedExpr, name: &str) -> Compiled {
        if let Some(place) = self.locals.iter().rposition(|local| local == name) {
            return Ok((Node::Local(place), Kind::Unknown));
        }
        let Some((_, variable)) = VARIABLES.iter().find(|(known, _)| *known == name) else {
            let known: Vec<_> = VARIABLES.iter().map(|(known, _)| *known).collect();
            let message = format!(
                "there is no variable `{name}`; a column is `after.{name}` or `before.{name}`, and else there are {}",
                known.join(", ")
            );
            return Err(self.refuse(at, message));
        };
        let kind = match variable {
            Variable::Before | Variable::After => Kind::Map,
            Variable::Table | Variable::Key | Variable::Operation => Kind::Text,
            Variable::Sequence | Variable::Timestamp => Kind::Number,
            Variable::Source => Kind::Unknown,
        };
        Ok((Node::Variable(*variable), kind))
    }

    fn call(&mut self, at: &IdedExpr, call: &CallExpr) -> Compiled {
        match (call.func_name.as_str(), call.target.as_deref(), call.args.as_slice()) {
            (operators::LOGICAL_AND, None, _) => {
                self.logic(at, operators::LOGICAL_AND).map(|terms| (Node::And(terms), Kind::Bool))
            }
            (operators::LOGICAL_OR, None, _) => {
                self.logic(at, operators::LOGICAL_OR).map(|terms| (Node::Or(terms), Kind::Bool))
            }
            (operators::LOGICAL_NOT, None, [operand]) => {
                Ok((Node::Not(Box::new(self.condition(operand)?)), Kind::Bool))
            }
            (operators::CONDITIONAL, None, [condition, yes, no]) => {
                let condition = self.condition(condition)?;
                let ((yes, kind), (no, other)) = (self.node(yes)?, self.node(no)?);
                Ok((Node::If(Box::new([condition, yes, no])), if kind == other { kind } else { Kind::Unknown }))
            }
            (operators::NEGATE, None, [operand]) => {
                let (node, kind) = self.node(operand)?;
                match kind {
                    Kind::Unknown | Kind::Null | Kind::Number => Ok((Node::Negate(Box::new(node)), kind)),
                    other => Err(self.refuse(at, format!("{} cannot be negated", other.name()))),
                }
            }
            (operators::INDEX, None, [operand, index]) => {
                let ((operand, kind), (index, _)) = (self.node(operand)?, self.node(index)?);
                match kind {
                    Kind::Unknown | Kind::Null | Kind::List | Kind::Map => {
                        Ok((Node::Index(Box::new([operand, index])), Kind::Unknown))
                    }
                    other => Err(self.refuse(at, format!("{} has no items", other.name()))),
                }
            }
            (operators::IN, None, [item, list]) => {
                let ((item, _), (list, kind)) = (self.node(item)?, self.node(list)?);
                if !matches!(kind, Kind::Unknown | Kind::Null | Kind::List | Kind::Map) {
                    return Err(self.refuse(at, format!("`in` does not go with {}", kind.name())));
                }
                self.check_operations(at, &item, &list)?;
                Ok((Node::In(Box::new([item, list])), Kind::Bool))
            }
            (name, None, [a, b]) if comparison(name).is_some() || arithmetic(name).is_some() => {
                self.operator(at, name, a, b)
            }
            ("has", None, [IdedExpr { expr: Expr::Select(select), .. }]) => {
                let (operand, _) = self.node(&select.operand)?;
                Ok((Node::Has(Box::new(operand), select.field.as_str().into()), Kind::Bool))
            }
            ("has", None, _) => Err(self.refuse(at, "`has` takes one member, as in has(after.email)")),
            ("matches", Some(operand), [pattern]) | ("matches", None, [operand, pattern]) => {
                let (operand, kind) = self.node(operand)?;
                if !matches!(kind, Kind::Unknown | Kind::Null | Kind::Text) {
                    return Err(self.refuse(at, format!("`matches` does not go with {}", kind.name())));
                }
                Ok((Node::Matches(Box::new(operand), self.pattern(pattern)?), Kind::Bool))
            }
            (name @ ("all" | "exists" | "exists_one" | "filter" | "map"), Some(range), arguments) => {
                self.fold(at, name, range, arguments)
            }
            (name, target, arguments) => self.function(at, name, target, arguments),
        }
    }

    /// The terms of `a && b && c`, which the parser has as a tree.
    fn logic(&mut self, at: &IdedExpr, operator: &str) -> Result<Vec<Node>, SelectionError> {
        let mut terms = Vec::new();
        let mut waiting = vec![at];
        while let Some(next) = waiting.pop() {
            match &next.expr {
                Expr::Call(call) if call.func_name == operator && call.target.is_none() => {
                    waiting.extend(call.args.iter().rev());
                }
                _ => terms.push(self.condition(next)?),
            }
        }
        Ok(terms)
    }

    /// What must be true or false.
    fn condition(&mut self, at: &IdedExpr) -> Result<Node, SelectionError> {
        match self.node(at)? {
            (node, Kind::Bool | Kind::Unknown | Kind::Null) => Ok(node),
            (_, kind) => Err(self.refuse(at, format!("{} stands where true or false is needed", kind.name()))),
        }
    }

    fn operator(&mut self, at: &IdedExpr, name: &str, a: &IdedExpr, b: &IdedExpr) -> Compiled {
        let ((a, kind), (b, other)) = (self.node(a)?, self.node(b)?);
        let unknown = |kind| matches!(kind, Kind::Unknown | Kind::Null);
        let same = kind == other || unknown(kind) || unknown(other);
        if let Some(comparison) = comparison(name) {
            if !same {
                let message =
                    format!("{} is compared with {}, which says the same for each event", kind.name(), other.name());
                return Err(self.refuse(at, message));
            }
            let by_order = !matches!(comparison, Comparison::Equal | Comparison::Different);
            if by_order && [kind, other].iter().any(|kind| matches!(kind, Kind::List | Kind::Map)) {
                return Err(self.refuse(at, "lists and rows have no order"));
            }
            self.check_operations(at, &a, &b)?;
            self.check_operations(at, &b, &a)?;
            return Ok((Node::Compare(comparison, Box::new([a, b])), Kind::Bool));
        }
        let Some(arithmetic) = arithmetic(name) else { return Err(self.refuse(at, "it cannot be understood")) };
        let takes = |kind| match kind {
            Kind::Unknown | Kind::Null | Kind::Number => true,
            Kind::Text | Kind::List => arithmetic == Arithmetic::Add,
            Kind::Bool | Kind::Map => false,
        };
        if !same || !takes(kind) || !takes(other) {
            let message = format!("{} does not go with {} and {}", name.replace('_', ""), kind.name(), other.name());
            return Err(self.refuse(at, message));
        }
        let outcome = if unknown(kind) { other } else { kind };
        Ok((Node::Arithmetic(arithmetic, Box::new([a, b])), if unknown(outcome) { Kind::Unknown } else { outcome }))
    }

    /// `operation == 'INSERT'` would be false for each event and tell nobody.
    fn check_operations(&self, at: &IdedExpr, a: &Node, b: &Node) -> Result<(), SelectionError> {
        let Node::Variable(Variable::Operation) = a else { return Ok(()) };
        let constants = match b {
            Node::Constant(Value::Made(items)) => items.as_slice(),
            Node::Constant(value) => std::slice::from_ref(value),
            _ => return Ok(()),
        };
        let known = [Operation::Insert, Operation::Update, Operation::Delete, Operation::Truncate].map(operation_name);
        for constant in constants {
            if let Value::Text(text) = constant
                && !known.contains(&text.as_ref())
            {
                let message = format!("`operation` is one of {}, and never `{text}`", known.join(", "));
                return Err(self.refuse(at, message));
            }
        }
        Ok(())
    }

    /// A pattern is compiled once, and so must be known.
    fn pattern(&mut self, at: &IdedExpr) -> Result<Regex, SelectionError> {
        let Expr::Literal(LiteralValue::String(pattern)) = &at.expr else {
            return Err(self.refuse(at, "the pattern of `matches` must be written out"));
        };
        let regex = RegexBuilder::new(pattern.inner())
            .size_limit(MAX_PATTERN_BYTES)
            .dfa_size_limit(MAX_PATTERN_BYTES)
            .nest_limit(32)
            .build();
        regex.map_err(|error| {
            let message = match error {
                regex::Error::CompiledTooBig(_) => {
                    format!("the pattern is too large: compiled it takes more than {MAX_PATTERN_BYTES} bytes")
                }
                // The last line says what is wrong, those before it draw the place.
                other => {
                    let message = other.to_string();
                    let last = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
                    format!("the pattern is not a regular expression: {last}")
                }
            };
            self.refuse(at, message)
        })
    }

    fn fold(&mut self, at: &IdedExpr, name: &str, range: &IdedExpr, arguments: &[IdedExpr]) -> Compiled {
        let (range, kind) = self.node(range)?;
        if !matches!(kind, Kind::Unknown | Kind::Null | Kind::List | Kind::Map) {
            return Err(self.refuse(at, format!("`{name}` does not go with {}", kind.name())));
        }
        let (variable, condition, transform) = match (name, arguments) {
            ("map", [variable, transform]) => (variable, None, Some(transform)),
            ("map", [variable, condition, transform]) => (variable, Some(condition), Some(transform)),
            ("all" | "exists" | "exists_one" | "filter", [variable, condition]) => (variable, Some(condition), None),
            _ => {
                let message =
                    format!("`{name}` takes a name and what is asked of it, as in after.tags.{name}(tag, tag == 'a')");
                return Err(self.refuse(at, message));
            }
        };
        let Expr::Ident(local) = &variable.expr else {
            return Err(self.refuse(variable, format!("`{name}` takes a name first")));
        };
        self.locals.push(local.clone());
        let condition = match condition {
            Some(condition) => self.condition(condition),
            None => Ok(Node::Constant(Value::Bool(true))),
        };
        let transform = transform.map(|transform| self.node(transform)).transpose();
        self.locals.pop();
        let (condition, transform) = (condition?, transform?);
        let (fold, kind) = match (name, transform) {
            ("all", _) => (Fold::All(range, condition), Kind::Bool),
            ("exists", _) => (Fold::Exists(range, condition), Kind::Bool),
            ("exists_one", _) => (Fold::ExistsOne(range, condition), Kind::Bool),
            (_, Some((transform, _))) => (Fold::Map(range, condition, transform), Kind::List),
            (_, None) => (Fold::Filter(range, condition), Kind::List),
        };
        Ok((Node::Fold(Box::new(fold)), kind))
    }

    fn function(&mut self, at: &IdedExpr, name: &str, target: Option<&IdedExpr>, arguments: &[IdedExpr]) -> Compiled {
        let Some((_, function)) = FUNCTIONS.iter().find(|(known, _)| *known == name) else {
            let known: Vec<_> = FUNCTIONS.iter().map(|(known, _)| *known).collect();
            return Err(
                self.refuse(at, format!("there is no function `{name}`; there are {}, {OTHERS}", known.join(", ")))
            );
        };
        let operands: Vec<_> = target.into_iter().chain(arguments).collect();
        // Conversions are called, never called on something; tests of texts the other way round.
        let called_on = match function {
            Function::Size => target.is_some(),
            other => other.arity() == 2,
        };
        if operands.len() != function.arity() || target.is_some() != called_on {
            let usage = match (function, function.arity()) {
                (Function::Size, _) => "size(after.tags) or after.tags.size()".to_owned(),
                (_, 2) => format!("after.name.{name}('a')"),
                _ => format!("{name}(after.age)"),
            };
            return Err(self.refuse(at, format!("`{name}` is written {usage}")));
        }
        let mut nodes = Vec::new();
        for operand in operands {
            let (node, kind) = self.node(operand)?;
            let takes = match function {
                Function::Dyn => true,
                Function::Size => !matches!(kind, Kind::Bool | Kind::Number),
                Function::StartsWith | Function::EndsWith | Function::Contains => {
                    matches!(kind, Kind::Unknown | Kind::Null | Kind::Text)
                }
                Function::Int | Function::UInt | Function::Double => {
                    matches!(kind, Kind::Unknown | Kind::Null | Kind::Number | Kind::Text)
                }
                Function::Text => !matches!(kind, Kind::List | Kind::Map),
                Function::Bool => matches!(kind, Kind::Unknown | Kind::Null | Kind::Bool | Kind::Text),
            };
            if !takes {
                return Err(self.refuse(operand, format!("`{name}` does not go with {}", kind.name())));
            }
            nodes.push(node);
        }
        let kind = match function {
            Function::Dyn => Kind::Unknown,
            Function::Size | Function::Int | Function::UInt | Function::Double => Kind::Number,
            Function::Text => Kind::Text,
            Function::StartsWith | Function::EndsWith | Function::Contains | Function::Bool => Kind::Bool,
        };
        Ok((Node::Call(*function, nodes), kind))
    }
}

fn comparison(operator: &str) -> Option<Comparison> {
    Some(match operator {
        operators::EQUALS => Comparison::Equal,
        operators::NOT_EQUALS => Comparison::Different,
        operators::LESS => Comparison::Less,
        operators::LESS_EQUALS => Comparison::LessOrEqual,
        operators::GREATER => Comparison::Greater,
        operators::GREATER_EQUALS => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

fn arithmetic(operator: &str) -> Option<Arithmetic> {
    Some(match operator {
        operators::ADD => Arithmetic::Add,
        operators::SUBSTRACT => Arithmetic::Subtract,
        operators::MULTIPLY => Arithmetic::Multiply,
        operators::DIVIDE => Arithmetic::Divide,
        operators::MODULO => Arithmetic::Remainder,
        _ => return None,
    })
}
