//! From the tree to a type: a serde `Deserializer` over [`Node`] whose errors are values.
//!
//! Formats in general phrase their errors for programmers. Here an error keeps what is known (the
//! place, what was expected, which names there are), and `read` phrases it for operators.

use std::fmt::Display;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::error::Invalid;
use crate::tree::{Entry, Node, Place, Step, Value};

/// Reads a type from a tree. Ends at the first value that is wrong.
pub(crate) fn decode<T: DeserializeOwned>(node: &Node) -> Result<T, Wrong> {
    T::deserialize(Reader(node)).map_err(|mut wrong| {
        // It was filled on the way up.
        wrong.place.0.reverse();
        wrong
    })
}

/// The value that is wrong, and why.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub place: Place,
    pub why: Why,
}

#[derive(Debug)]
pub(crate) enum Why {
    /// There is no such field. The fields there are.
    Unknown(&'static [&'static str]),
    /// This name, which the operator chooses, is not a good one.
    Name(Invalid),
    /// A field that has no default is not there.
    Missing(&'static str),
    /// Something of another kind is due.
    Kind(Due),
    /// None of these.
    Choice(&'static [&'static str]),
    /// Refused by the type itself.
    Value(Invalid),
}

#[derive(Debug)]
pub(crate) enum Due {
    List,
    Table,
    Whole,
    /// Anything else, in words.
    Other(String),
}

impl Wrong {
    fn new(why: Why) -> Self {
        Self {
            place: Place::default(),
            why,
        }
    }

    fn below(mut self, step: Step) -> Self {
        self.place.0.push(step);
        self
    }
}

/// A node that is read. A type of its own: how that goes is nobody else's concern.
struct Reader<'de>(&'de Node);

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.0.value {
            Value::Text(text) => visitor.visit_str(text),
            Value::Whole(number) => visitor.visit_i64(*number),
            Value::Flag(flag) => visitor.visit_bool(*flag),
            Value::List(nodes) => visitor.visit_seq(Elements(nodes.iter().enumerate())),
            Value::Table(entries) => visitor.visit_map(Entries(entries.iter(), None)),
            Value::Nothing | Value::Odd(..) | Value::Refused => Err(Wrong::invalid_type(
                Unexpected::Other(self.0.value.what()),
                &visitor,
            )),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        // A null was left out with its key.
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0.value {
            Value::List(_) => self.deserialize_any(visitor),
            _ => Err(Wrong::new(Why::Kind(Due::List))),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0.value {
            Value::Table(_) => self.deserialize_any(visitor),
            _ => Err(Wrong::new(Why::Kind(Due::Table))),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.deserialize_map(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0.value {
            Value::Whole(number) => match u32::try_from(number) {
                Ok(number) => visitor.visit_u32(number),
                Err(_) if number < 0 => Err(Wrong::custom("below 0")),
                Err(_) => Err(Wrong::custom(format_args!("above {}", u32::MAX))),
            },
            _ => Err(Wrong::new(Why::Kind(Due::Whole))),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0.value {
            Value::Whole(number) => match u64::try_from(number) {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => Err(Wrong::custom("below 0")),
            },
            _ => Err(Wrong::new(Why::Kind(Due::Whole))),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match &self.0.value {
            Value::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => Err(Wrong::new(Why::Choice(known))),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Elements<'de>(std::iter::Enumerate<std::slice::Iter<'de, Node>>);

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Wrong> {
        let Some((index, node)) = self
            .0
            .find(|(_, node)| !matches!(node.value, Value::Refused))
        else {
            return Ok(None);
        };
        seed.deserialize(Reader(node))
            .map(Some)
            .map_err(|wrong| wrong.below(Step::Index(index)))
    }
}

/// The entries to come, and the one whose key was taken last.
struct Entries<'de>(std::slice::Iter<'de, Entry>, Option<&'de Entry>);

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Wrong> {
        self.1 = self
            .0
            .find(|entry| !matches!(entry.node.value, Value::Refused | Value::Nothing));
        let Some(entry) = self.1 else { return Ok(None) };
        let key: StrDeserializer<'_, Wrong> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|wrong| {
            let why = match wrong.why {
                Why::Value(invalid) => Why::Name(invalid),
                why => why,
            };
            Wrong::new(why).below(Step::Key(entry.key.clone()))
        })
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Wrong> {
        let Some(entry) = self.1.take() else {
            return Err(Wrong::custom("a value without its key"));
        };
        seed.deserialize(Reader(&entry.node))
            .map_err(|wrong| wrong.below(Step::Key(entry.key.clone())))
    }
}

impl Error for Wrong {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(Why::Value(Invalid::from_text(&message.to_string())))
    }

    fn invalid_type(_: Unexpected<'_>, due: &dyn Expected) -> Self {
        Self::new(Why::Kind(Due::Other(due.to_string())))
    }

    fn invalid_value(is: Unexpected<'_>, due: &dyn Expected) -> Self {
        match is {
            // The one way for serde's own types: `NonZero`.
            Unexpected::Unsigned(0) => Self::custom("must be at least 1"),
            _ => Self::custom(format_args!("not {due}")),
        }
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(Why::Choice(known))
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(Why::Unknown(known))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Why::Missing(field))
    }
}

impl std::error::Error for Wrong {}

impl Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Only serde asks for it to be there; `read` phrases the parts.
        write!(f, "{}: {:?}", self.place, self.why)
    }
}
