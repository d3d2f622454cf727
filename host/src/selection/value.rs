//! Values while an expression is evaluated, borrowed from the event where they can be.
//!
//! Rules that go beyond CEL, because rows are JSON and have no declared types:
//! - What a row lacks is null. What is computed of null is null, comparisons by order with null are false, and null
//!   counts as false where a condition is asked for.
//! - JSON does not tell 5 from 5.0, so any two numbers can be compared and computed with. Integers reach from -2^63 to
//!   2^64-1; with a double the outcome is a double.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::evaluate::{Failure, Work};
use super::image::{Image, Json, Text};

#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(Cow<'a, str>),
    /// A list of an image.
    List(&'a Image, &'a [Json]),
    /// A list that the expression made.
    Made(Vec<Value<'a>>),
    Map(&'a Image, &'a [(Text, Json)]),
}

/// What the operators `+ - * / %` do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl<'a> Value<'a> {
    pub(super) fn of(image: &'a Image, json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Int(value) => Self::Int(*value),
            Json::UInt(value) => Self::UInt(*value),
            Json::Double(value) => Self::Double(*value),
            Json::Text(text) => Self::Text(Cow::Borrowed(image.text(text))),
            Json::List(items) => Self::List(image, items),
            Json::Map(members) => Self::Map(image, members),
        }
    }

    /// What it is, in a message.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::UInt(_) | Self::Double(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(..) | Self::Made(_) => "a list",
            Self::Map(..) => "a map",
        }
    }

    /// As a condition.
    pub(super) fn truth(&self) -> Result<bool, Failure> {
        match self {
            Self::Bool(value) => Ok(*value),
            Self::Null => Ok(false),
            other => Err(Failure::new(format!("{} stands where true or false is needed", other.kind()))),
        }
    }

    /// The items of a list, or the names of a map.
    pub(super) fn items(self) -> Result<Items<'a>, Failure> {
        match self {
            Self::Null => Ok(Items::Made(Vec::new().into_iter())),
            Self::List(image, items) => Ok(Items::List(image, items.iter())),
            Self::Made(items) => Ok(Items::Made(items.into_iter())),
            Self::Map(image, members) => Ok(Items::Names(image, members.iter())),
            other => Err(Failure::new(format!("{} has no items", other.kind()))),
        }
    }

    /// The member of a map or, by a number, the item of a list; null if there is none.
    pub(super) fn index(self, index: &Value<'a>, work: &mut Work) -> Result<Self, Failure> {
        match (self, index) {
            (Self::Null, _) | (_, Self::Null) => Ok(Self::Null),
            (Self::Map(image, members), Self::Text(name)) => {
                work.spend(members.len() / 16)?;
                Ok(image.member(members, name).map_or(Self::Null, |json| Self::of(image, json)))
            }
            (list @ (Self::List(..) | Self::Made(_)), Self::Int(_) | Self::UInt(_) | Self::Double(_)) => {
                let Some(at) = index.whole().and_then(|at| usize::try_from(at).ok()) else { return Ok(Self::Null) };
                Ok(match list {
                    Self::List(image, items) => items.get(at).map_or(Self::Null, |json| Self::of(image, json)),
                    Self::Made(mut items) if at < items.len() => items.swap_remove(at),
                    _ => Self::Null,
                })
            }
            (value, index) => Err(Failure::new(format!("{} has nothing at {}", value.kind(), index.kind()))),
        }
    }

    /// A number without a fraction.
    fn whole(&self) -> Option<i128> {
        match self {
            Self::Int(value) => Some(i128::from(*value)),
            Self::UInt(value) => Some(i128::from(*value)),
            // Saturates, far beyond every integer that there is.
            Self::Double(value) if value.fract() == 0.0 => Some(*value as i128),
            _ => None,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::UInt(value) => Some(*value as f64),
            Self::Double(value) => Some(*value),
            _ => None,
        }
    }

    /// Which comes first; none for what has no order, null included.
    pub(super) fn order(&self, other: &Self, work: &mut Work) -> Result<Option<Ordering>, Failure> {
        match (self, other) {
            (Self::Null, _) | (_, Self::Null) => Ok(None),
            (Self::Text(a), Self::Text(b)) => {
                work.read(a.len().min(b.len()))?;
                Ok(Some(a.cmp(b)))
            }
            (Self::Bool(a), Self::Bool(b)) => Ok(Some(a.cmp(b))),
            (a, b) if a.number().is_some() && b.number().is_some() => Ok(order_of_numbers(a, b)),
            (a, b) => Err(Failure::new(format!("{} cannot be ordered with {}", a.kind(), b.kind()))),
        }
    }

    /// Values of different kinds are different; numbers are compared by what they are worth.
    pub(super) fn equals(&self, other: &Self, work: &mut Work) -> Result<bool, Failure> {
        work.spend(1)?;
        Ok(match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => {
                work.read(a.len().min(b.len()))?;
                a == b
            }
            (Self::Map(a, members), Self::Map(b, others)) => {
                if members.len() != others.len() {
                    return Ok(false);
                }
                for (at, (name, json)) in members.iter().enumerate() {
                    let name = a.text(name);
                    // Mostly both have their members in the same order.
                    let same = others.get(at).filter(|(other, _)| b.text(other) == name).map(|(_, json)| json);
                    let found = match same {
                        Some(found) => Some(found),
                        None => {
                            work.spend(others.len() / 16)?;
                            b.member(others, name)
                        }
                    };
                    match found {
                        Some(found) if Value::of(a, json).equals(&Value::of(b, found), work)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (a, b) if a.number().is_some() && b.number().is_some() => order_of_numbers(a, b) == Some(Ordering::Equal),
            (Self::List(..) | Self::Made(_), Self::List(..) | Self::Made(_)) => {
                if self.length() != other.length() {
                    return Ok(false);
                }
                for at in 0..self.length().unwrap_or_default() {
                    match (self.item(at), other.item(at)) {
                        (Some(a), Some(b)) if a.equals(&b, work)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            _ => false,
        })
    }

    /// How many characters, items or members.
    pub(super) fn length(&self) -> Option<usize> {
        match self {
            Self::Text(text) => Some(text.chars().count()),
            Self::List(_, items) => Some(items.len()),
            Self::Made(items) => Some(items.len()),
            Self::Map(_, members) => Some(members.len()),
            _ => None,
        }
    }

    /// The item of a list, without taking the list apart.
    fn item(&self, at: usize) -> Option<Cow<'_, Value<'a>>> {
        match self {
            Self::List(image, items) => items.get(at).map(|json| Cow::Owned(Value::of(image, json))),
            Self::Made(items) => items.get(at).map(Cow::Borrowed),
            _ => None,
        }
    }

    pub(super) fn negated(self) -> Result<Self, Failure> {
        match self {
            Self::Null => Ok(Self::Null),
            Self::Double(value) => Ok(Self::Double(-value)),
            Self::Int(_) | Self::UInt(_) => Value::Int(0).compute(Arithmetic::Subtract, self, &mut Work::default()),
            other => Err(Failure::new(format!("{} cannot be negated", other.kind()))),
        }
    }

    pub(super) fn compute(self, operator: Arithmetic, other: Self, work: &mut Work) -> Result<Self, Failure> {
        match (self, other) {
            (Self::Null, _) | (_, Self::Null) => Ok(Self::Null),
            (Self::Text(a), Self::Text(b)) if operator == Arithmetic::Add => {
                work.make(a.len() + b.len())?;
                Ok(Self::Text(Cow::Owned(a.into_owned() + &b)))
            }
            (a @ (Self::List(..) | Self::Made(_)), b @ (Self::List(..) | Self::Made(_)))
                if operator == Arithmetic::Add =>
            {
                let items = a.length().unwrap_or_default() + b.length().unwrap_or_default();
                work.make(items * size_of::<Value<'_>>())?;
                Ok(Self::Made(a.items()?.chain(b.items()?).collect()))
            }
            (a, b) => match (a.integer(), b.integer()) {
                (Some(a), Some(b)) => integers(a, operator, b),
                _ => match (a.number(), b.number()) {
                    (Some(x), Some(y)) => doubles(x, operator, y),
                    _ => Err(Failure::new(format!(
                        "`{}` does not go with {} and {}",
                        operator.sign(),
                        a.kind(),
                        b.kind()
                    ))),
                },
            },
        }
    }

    fn integer(&self) -> Option<i128> {
        match self {
            Self::Int(value) => Some(i128::from(*value)),
            Self::UInt(value) => Some(i128::from(*value)),
            _ => None,
        }
    }

    /// An integer, if it is one of those that there are.
    pub(super) fn from_integer(value: i128) -> Option<Self> {
        i64::try_from(value).map(Self::Int).or_else(|_| u64::try_from(value).map(Self::UInt)).ok()
    }
}

impl Arithmetic {
    fn sign(self) -> char {
        match self {
            Self::Add => '+',
            Self::Subtract => '-',
            Self::Multiply => '*',
            Self::Divide => '/',
            Self::Remainder => '%',
        }
    }
}

/// Both fit into 65 bits, so nothing overflows here.
fn integers<'a>(a: i128, operator: Arithmetic, b: i128) -> Result<Value<'a>, Failure> {
    let outcome = match operator {
        Arithmetic::Add => a + b,
        Arithmetic::Subtract => a - b,
        Arithmetic::Multiply => a.saturating_mul(b),
        Arithmetic::Divide | Arithmetic::Remainder if b == 0 => return Err(Failure::new("division by zero")),
        Arithmetic::Divide => a / b,
        Arithmetic::Remainder => a % b,
    };
    Value::from_integer(outcome).ok_or_else(|| Failure::new(format!("`{}` overflows", operator.sign())))
}

fn doubles<'a>(a: f64, operator: Arithmetic, b: f64) -> Result<Value<'a>, Failure> {
    Ok(Value::Double(match operator {
        Arithmetic::Add => a + b,
        Arithmetic::Subtract => a - b,
        Arithmetic::Multiply => a * b,
        Arithmetic::Divide => a / b,
        Arithmetic::Remainder => return Err(Failure::new("`%` goes with integers only")),
    }))
}

/// Exact, also where a double cannot say which integer it is next to.
fn order_of_numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a.integer(), b.integer()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        (Some(a), None) => integer_and_double(a, b.number()?),
        (None, Some(b)) => integer_and_double(b, a.number()?).map(Ordering::reverse),
        (None, None) => a.number()?.partial_cmp(&b.number()?),
    }
}

fn integer_and_double(integer: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Truncates, and saturates far beyond 65 bits; what was cut off decides between equals.
    let by_whole = integer.cmp(&(double.trunc() as i128));
    Some(by_whole.then_with(|| 0.0.partial_cmp(&double.fract()).unwrap_or(Ordering::Equal)))
}

/// What a comprehension goes over.
pub(super) enum Items<'a> {
    List(&'a Image, std::slice::Iter<'a, Json>),
    Made(std::vec::IntoIter<Value<'a>>),
    Names(&'a Image, std::slice::Iter<'a, (Text, Json)>),
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        match self {
            Self::List(image, items) => items.next().map(|json| Value::of(image, json)),
            Self::Made(items) => items.next(),
            Self::Names(image, members) => members.next().map(|(name, _)| Value::Text(Cow::Borrowed(image.text(name)))),
        }
    }
}
