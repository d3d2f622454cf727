//! Row images, parsed once for all the selections that look at them.
//!
//! A log event's images are text. An expression needs values, so an image is parsed whole when the first expression
//! asks for a member of it, and kept for the others. Merely skipping over a 161-byte row took about a quarter of the
//! time that parsing and judging it did: parsing members only when they are asked for is worth trying if one selection
//! alone ever becomes the bottleneck.
//!
//! Texts without escapes are not copied but named by their place in the image.

use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::store::Event;

/// The parsed images of one event, shared by every selection that judges it. Belongs to that event alone.
#[derive(Debug, Default)]
pub struct Images {
    before: OnceLock<Box<Parsed>>,
    after: OnceLock<Box<Parsed>>,
}

type Parsed = Result<Image, String>;

impl Images {
    pub(super) fn before(&self, event: &Event) -> Result<Option<&Image>, &str> {
        parsed(&self.before, event.write.before.as_ref())
    }

    pub(super) fn after(&self, event: &Event) -> Result<Option<&Image>, &str> {
        parsed(&self.after, event.write.after.as_ref())
    }
}

fn parsed<'a>(cell: &'a OnceLock<Box<Parsed>>, image: Option<&Bytes>) -> Result<Option<&'a Image>, &'a str> {
    let Some(image) = image else { return Ok(None) };
    match cell.get_or_init(|| Box::new(Image::parse(image))).as_ref() {
        Ok(image) => Ok(Some(image)),
        Err(message) => Err(message),
    }
}

/// A parsed image, with the text that it stands in.
#[derive(Debug)]
pub(super) struct Image {
    text: Bytes,
    pub(super) value: Json,
}

/// A JSON value. Integers that fit are kept exactly, whatever is larger or has a fraction or an exponent is a double.
#[derive(Debug)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Int(i64),
    /// Only what is too large for `Int`.
    UInt(u64),
    Double(f64),
    Text(Text),
    List(Vec<Json>),
    /// In the order of the image; no name stands there twice.
    Map(Vec<(Text, Json)>),
}

/// A text of an image.
pub(super) enum Text {
    /// Where it stands in the image.
    Placed { start: u32, length: u32 },
    /// With its escapes resolved.
    Unescaped(Box<str>),
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Placed { start, length } => write!(f, "{start}+{length}"),
            Self::Unescaped(text) => write!(f, "{text:?}"),
        }
    }
}

impl Image {
    fn parse(text: &Bytes) -> Parsed {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let value = JsonSeed { base: text.as_ptr() as usize }
            .deserialize(&mut deserializer)
            .and_then(|value| deserializer.end().map(|()| value))
            .map_err(|error| format!("the row's image cannot be read: {error}"))?;
        Ok(Self { text: text.clone(), value })
    }

    /// What a text of this image says.
    pub(super) fn text<'a>(&'a self, text: &'a Text) -> &'a str {
        match text {
            Text::Unescaped(text) => text,
            Text::Placed { start, length } => {
                let (start, length) = (*start as usize, *length as usize);
                // Both hold because the parser said so of the same bytes.
                let bytes = self.text.get(start..start + length).unwrap_or_default();
                str::from_utf8(bytes).unwrap_or_default()
            }
        }
    }

    /// A member of one of this image's objects.
    pub(super) fn member<'a>(&self, map: &'a [(Text, Json)], name: &str) -> Option<&'a Json> {
        let is = |text: &Text| match text {
            Text::Placed { start, length } => {
                *length as usize == name.len()
                    && self.text.get(*start as usize..).is_some_and(|rest| rest.starts_with(name.as_bytes()))
            }
            Text::Unescaped(text) => **text == *name,
        };
        map.iter().find(|(text, _)| is(text)).map(|(_, value)| value)
    }
}

/// Reads a value out of the text that begins at the address `base`.
#[derive(Clone, Copy)]
struct JsonSeed {
    base: usize,
}

impl JsonSeed {
    fn placed(self, text: &str) -> Text {
        let start = (text.as_ptr() as usize).checked_sub(self.base).and_then(|start| u32::try_from(start).ok());
        match (start, u32::try_from(text.len())) {
            (Some(start), Ok(length)) => Text::Placed { start, length },
            _ => Text::Unescaped(text.into()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for JsonSeed {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonSeed {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(i64::try_from(value).map_or(Json::UInt(value), Json::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Double(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Json, E> {
        Ok(Json::Text(self.placed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(Text::Unescaped(value.into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut map = Vec::new();
        while let Some(name) = members.next_key_seed(NameSeed(self))? {
            map.push((name, members.next_value_seed(self)?));
        }
        Ok(Json::Map(map))
    }
}

/// Reads a member's name.
struct NameSeed(JsonSeed);

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Text;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Text, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for NameSeed {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Text, E> {
        Ok(self.0.placed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Text, E> {
        Ok(Text::Unescaped(name.into()))
    }
}
