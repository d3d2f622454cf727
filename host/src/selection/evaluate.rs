//! An expression's value for one event, within a bounded amount of work.

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;

use super::Images;
use super::expression::{Comparison, Fold, Function, Node, Variable};
use super::value::Value;
use crate::store::{Event, Operation};

/// The most steps that one event may take: each operation is one, and long texts and lists count by their length. So
/// one comprehension over any row is fine, a thousand items within a thousand items are not, and the longest that an
/// event can hold its subscription up is some tens of milliseconds.
pub(super) const MAX_STEPS: usize = 1_000_000;
/// The most bytes of texts and lists that one event may have made.
const MAX_MADE_BYTES: usize = 16 << 20;
/// How many bytes of a text are read in about the time of one step.
const BYTES_PER_STEP: usize = 64;
/// The same for a pattern, which looks at every byte for each of its states.
const PATTERN_BYTES_PER_STEP: usize = 4;

/// Why an expression has no value for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure(Cow<'static, str>);

impl Failure {
    pub(super) fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self(message.into())
    }

    pub(super) fn into_message(self) -> String {
        self.0.into_owned()
    }
}

/// What has been done for one event.
#[derive(Debug, Default)]
pub(super) struct Work {
    steps: usize,
    made_bytes: usize,
}

impl Work {
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), Failure> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MAX_STEPS {
            return Err(Failure::new(format!("it takes more than {MAX_STEPS} steps for this event")));
        }
        Ok(())
    }

    /// So many bytes of text are looked at.
    pub(super) fn read(&mut self, bytes: usize) -> Result<(), Failure> {
        self.spend(bytes / BYTES_PER_STEP)
    }

    /// So many bytes are about to be made.
    pub(super) fn make(&mut self, bytes: usize) -> Result<(), Failure> {
        self.read(bytes)?;
        self.made_bytes = self.made_bytes.saturating_add(bytes);
        if self.made_bytes > MAX_MADE_BYTES {
            return Err(Failure::new(format!("it makes more than {MAX_MADE_BYTES} bytes of texts and lists")));
        }
        Ok(())
    }

    fn exhausted(&self) -> bool {
        self.steps > MAX_STEPS || self.made_bytes > MAX_MADE_BYTES
    }
}

/// Whether the event is what the expression asks for.
pub(super) fn holds(node: &Node, event: &Event, images: &Images) -> Result<bool, Failure> {
    let mut scope = Scope { event, images, locals: Vec::new(), work: Work::default() };
    scope.value(node)?.truth()
}

struct Scope<'a> {
    event: &'a Event,
    images: &'a Images,
    /// The variables of the comprehensions that are under way, outermost first.
    locals: Vec<Value<'a>>,
    work: Work,
}

impl<'a> Scope<'a> {
    fn value(&mut self, node: &'a Node) -> Result<Value<'a>, Failure> {
        self.work.spend(1)?;
        Ok(match node {
            Node::Constant(value) => self.copy(value)?,
            Node::Variable(variable) => self.variable(*variable)?,
            Node::Local(at) => match self.locals.get(*at) {
                Some(value) => {
                    let value = value.clone();
                    self.charge_copy(&value)?;
                    value
                }
                None => Value::Null,
            },
            Node::Member(operand, name) => self.member(operand, name)?.unwrap_or(Value::Null),
            Node::Has(operand, name) => Value::Bool(self.member(operand, name)?.is_some()),
            Node::Index(operands) => {
                let (list, index) = self.both(operands)?;
                list.index(&index, &mut self.work)?
            }
            Node::And(terms) => Value::Bool(self.decide(terms, false)?),
            Node::Or(terms) => Value::Bool(self.decide(terms, true)?),
            Node::Not(operand) => Value::Bool(!self.value(operand)?.truth()?),
            Node::If(branches) => {
                let [condition, yes, no] = branches.as_ref();
                let branch = if self.value(condition)?.truth()? { yes } else { no };
                self.value(branch)?
            }
            Node::Compare(comparison, operands) => {
                let (a, b) = self.both(operands)?;
                Value::Bool(self.compare(*comparison, &a, &b)?)
            }
            Node::In(operands) => match operands.as_ref() {
                // The usual list, and not worth a copy for each event.
                [item, Node::Constant(Value::Made(items))] => {
                    let item = self.value(item)?;
                    Value::Bool(self.among(&item, items.iter())?)
                }
                [item, list] => {
                    let (item, list) = (self.value(item)?, self.value(list)?);
                    Value::Bool(self.contained(&item, list)?)
                }
            },
            Node::Arithmetic(operator, operands) => {
                let (a, b) = self.both(operands)?;
                a.compute(*operator, b, &mut self.work)?
            }
            Node::Negate(operand) => self.value(operand)?.negated()?,
            Node::List(nodes) => {
                self.work.make(nodes.len() * size_of::<Value<'_>>())?;
                Value::Made(nodes.iter().map(|node| self.value(node)).collect::<Result<_, _>>()?)
            }
            Node::Call(function, operands) => self.call(*function, operands)?,
            Node::Matches(operand, pattern) => match self.value(operand)? {
                Value::Null => Value::Bool(false),
                Value::Text(text) => {
                    self.work.spend(text.len() / PATTERN_BYTES_PER_STEP)?;
                    Value::Bool(pattern.is_match(&text))
                }
                other => return Err(Failure::new(format!("`matches` does not go with {}", other.kind()))),
            },
            Node::Fold(fold) => self.fold(fold)?,
        })
    }

    fn variable(&self, variable: Variable) -> Result<Value<'a>, Failure> {
        let event = self.event;
        let image = |image: Result<Option<&'a super::image::Image>, &str>| match image {
            Ok(Some(image)) => Ok(Value::of(image, &image.value)),
            Ok(None) => Ok(Value::Null),
            Err(message) => Err(Failure::new(message.to_owned())),
        };
        let number = |number: u64| Value::from_integer(i128::from(number)).unwrap_or(Value::Null);
        Ok(match variable {
            Variable::Before => image(self.images.before(event))?,
            Variable::After => image(self.images.after(event))?,
            Variable::Table => Value::Text(Cow::Borrowed(&event.write.table)),
            Variable::Key => Value::Text(String::from_utf8_lossy(&event.write.key)),
            Variable::Operation => Value::Text(Cow::Borrowed(operation_name(event.write.operation))),
            Variable::Sequence => number(event.sequence),
            Variable::Timestamp => number(event.timestamp_ms),
            Variable::Source => match &event.write.origin {
                Some(origin) => Value::Text(Cow::Borrowed(&origin.source)),
                None => Value::Null,
            },
        })
    }

    /// A constant, without a copy of its text.
    fn copy(&mut self, value: &'a Value<'static>) -> Result<Value<'a>, Failure> {
        Ok(match value {
            Value::Text(text) => Value::Text(Cow::Borrowed(text)),
            Value::Made(items) => {
                self.work.make(items.len() * size_of::<Value<'_>>())?;
                Value::Made(items.iter().map(|item| self.copy(item)).collect::<Result<_, _>>()?)
            }
            other => other.clone(),
        })
    }

    /// A local variable is copied each time it is named, and what the expression made itself is copied whole.
    fn charge_copy(&mut self, value: &Value<'_>) -> Result<(), Failure> {
        match value {
            Value::Text(Cow::Owned(text)) => self.work.make(text.len()),
            Value::Made(items) => {
                self.work.make(items.len() * size_of::<Value<'_>>())?;
                items.iter().try_for_each(|item| self.charge_copy(item))
            }
            _ => Ok(()),
        }
    }

    fn both(&mut self, operands: &'a [Node; 2]) -> Result<(Value<'a>, Value<'a>), Failure> {
        Ok((self.value(&operands[0])?, self.value(&operands[1])?))
    }

    fn member(&mut self, operand: &'a Node, name: &str) -> Result<Option<Value<'a>>, Failure> {
        match self.value(operand)? {
            Value::Null => Ok(None),
            Value::Map(image, members) => {
                self.work.spend(members.len() / 16)?;
                Ok(image.member(members, name).map(|json| Value::of(image, json)))
            }
            other => Err(Failure::new(format!("{} has no member `{name}`", other.kind()))),
        }
    }

    /// `&&` and `||`: whichever term decides does so, even if another one fails, as CEL has it.
    fn decide(&mut self, terms: &'a [Node], decisive: bool) -> Result<bool, Failure> {
        let mut failure = None;
        for term in terms {
            match self.value(term).and_then(|value| value.truth()) {
                Ok(value) if value == decisive => return Ok(decisive),
                Ok(_) => {}
                Err(other) => self.absorb(&mut failure, other)?,
            }
        }
        failure.map_or(Ok(!decisive), Err)
    }

    /// Keeps the first failure for the end, but gives up when there is no work left to be done.
    fn absorb(&self, failure: &mut Option<Failure>, other: Failure) -> Result<(), Failure> {
        if self.work.exhausted() {
            return Err(other);
        }
        failure.get_or_insert(other);
        Ok(())
    }

    fn compare(&mut self, comparison: Comparison, a: &Value<'_>, b: &Value<'_>) -> Result<bool, Failure> {
        let is = |order: Option<Ordering>, fits: fn(Ordering) -> bool| order.is_some_and(fits);
        Ok(match comparison {
            Comparison::Equal => a.equals(b, &mut self.work)?,
            Comparison::Different => !a.equals(b, &mut self.work)?,
            Comparison::Less => is(a.order(b, &mut self.work)?, Ordering::is_lt),
            Comparison::LessOrEqual => is(a.order(b, &mut self.work)?, Ordering::is_le),
            Comparison::Greater => is(a.order(b, &mut self.work)?, Ordering::is_gt),
            Comparison::GreaterOrEqual => is(a.order(b, &mut self.work)?, Ordering::is_ge),
        })
    }

    fn contained(&mut self, item: &Value<'a>, list: Value<'a>) -> Result<bool, Failure> {
        match (item, list) {
            (_, Value::Null) => Ok(false),
            (Value::Text(name), Value::Map(image, members)) => {
                self.work.spend(members.len() / 16)?;
                Ok(image.member(members, name).is_some())
            }
            // No name is anything but a text.
            (_, Value::Map(..)) => Ok(false),
            (item, list @ (Value::List(..) | Value::Made(_))) => self.among(item, list.items()?),
            (_, other) => Err(Failure::new(format!("`in` does not go with {}", other.kind()))),
        }
    }

    fn among<V: Borrow<Value<'a>>>(
        &mut self,
        item: &Value<'a>,
        mut items: impl Iterator<Item = V>,
    ) -> Result<bool, Failure> {
        loop {
            match items.next() {
                None => return Ok(false),
                Some(other) if item.equals(other.borrow(), &mut self.work)? => return Ok(true),
                Some(_) => {}
            }
        }
    }

    fn call(&mut self, function: Function, operands: &'a [Node]) -> Result<Value<'a>, Failure> {
        let wrong = |kind: &str| Failure::new(format!("`{}` does not go with {kind}", function.name()));
        let Some(first) = operands.first() else { return Ok(Value::Null) };
        let operand = self.value(first)?;
        if let Some(second) = operands.get(1) {
            let other = self.value(second)?;
            return match (&operand, &other) {
                (Value::Null, _) | (_, Value::Null) => Ok(Value::Bool(false)),
                (Value::Text(text), Value::Text(part)) => {
                    self.work.read(text.len() + part.len())?;
                    Ok(Value::Bool(match function {
                        Function::StartsWith => text.starts_with(part.as_ref()),
                        Function::EndsWith => text.ends_with(part.as_ref()),
                        _ => text.contains(part.as_ref()),
                    }))
                }
                (Value::Text(_), other) => Err(wrong(other.kind())),
                (other, _) => Err(wrong(other.kind())),
            };
        }
        if let Value::Text(text) = &operand {
            self.work.read(text.len())?;
        }
        let none = || Failure::new(format!("`{}` cannot make one of this value", function.name()));
        Ok(match (function, operand) {
            (Function::Dyn, operand) => operand,
            (_, Value::Null) => Value::Null,
            (Function::Size, operand) => match operand.length() {
                Some(length) => Value::from_integer(length as i128).unwrap_or(Value::Null),
                None => return Err(wrong(operand.kind())),
            },
            (Function::Int | Function::UInt, operand) => {
                let whole = match operand {
                    Value::Int(value) => i128::from(value),
                    Value::UInt(value) => i128::from(value),
                    Value::Double(value) if value.is_finite() => value.trunc() as i128,
                    Value::Text(text) => text.parse().map_err(|_| none())?,
                    Value::Double(_) => return Err(none()),
                    other => return Err(wrong(other.kind())),
                };
                match function {
                    Function::UInt => Value::UInt(u64::try_from(whole).map_err(|_| none())?),
                    _ => Value::Int(i64::try_from(whole).map_err(|_| none())?),
                }
            }
            (Function::Double, operand) => Value::Double(match operand {
                Value::Int(value) => value as f64,
                Value::UInt(value) => value as f64,
                Value::Double(value) => value,
                Value::Text(text) => text.parse().map_err(|_| none())?,
                other => return Err(wrong(other.kind())),
            }),
            (Function::Text, operand) => Value::Text(match operand {
                Value::Text(text) => text,
                Value::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
                Value::Int(value) => value.to_string().into(),
                Value::UInt(value) => value.to_string().into(),
                Value::Double(value) => value.to_string().into(),
                other => return Err(wrong(other.kind())),
            }),
            (Function::Bool, operand) => Value::Bool(match operand {
                Value::Bool(value) => value,
                Value::Text(text) => text.parse().map_err(|_| none())?,
                other => return Err(wrong(other.kind())),
            }),
            // Those take two.
            (Function::StartsWith | Function::EndsWith | Function::Contains, operand) => {
                return Err(wrong(operand.kind()));
            }
        })
    }

    fn fold(&mut self, fold: &'a Fold) -> Result<Value<'a>, Failure> {
        let (range, body, transform) = match fold {
            Fold::All(range, body) | Fold::Exists(range, body) | Fold::ExistsOne(range, body) => (range, body, None),
            Fold::Filter(range, body) => (range, body, None),
            Fold::Map(range, condition, transform) => (range, condition, Some(transform)),
        };
        let items = self.value(range)?.items()?;
        let depth = self.locals.len();
        let mut made = Vec::new();
        let (mut found, mut failure) = (0_usize, None);
        for item in items {
            let kept = item.clone();
            self.charge_copy(&kept)?;
            self.locals.push(item);
            let outcome = self.value(body).and_then(|value| value.truth());
            let transformed = match (&outcome, transform) {
                (Ok(true), Some(transform)) => Some(self.value(transform)),
                _ => None,
            };
            self.locals.truncate(depth);
            match (fold, outcome) {
                (Fold::All(..), Ok(false)) => return Ok(Value::Bool(false)),
                (Fold::Exists(..), Ok(true)) => return Ok(Value::Bool(true)),
                (Fold::All(..) | Fold::Exists(..), Err(other)) => self.absorb(&mut failure, other)?,
                (_, Err(other)) => return Err(other),
                (_, Ok(false)) => {}
                (Fold::Filter(..) | Fold::Map(..), Ok(true)) => {
                    self.work.make(size_of::<Value<'_>>())?;
                    made.push(transformed.unwrap_or(Ok(kept))?);
                }
                (Fold::All(..) | Fold::ExistsOne(..), Ok(true)) => found += 1,
            }
        }
        match (fold, failure) {
            (_, Some(failure)) => Err(failure),
            (Fold::All(..), None) => Ok(Value::Bool(true)),
            (Fold::Exists(..), None) => Ok(Value::Bool(false)),
            (Fold::ExistsOne(..), None) => Ok(Value::Bool(found == 1)),
            (Fold::Filter(..) | Fold::Map(..), None) => Ok(Value::Made(made)),
        }
    }
}

/// The name as definitions of subscriptions have it.
pub(super) fn operation_name(operation: Operation) -> &'static str {
    match operation {
        Operation::Insert => "insert",
        Operation::Update => "update",
        Operation::Delete => "delete",
        Operation::Truncate => "truncate",
    }
}
