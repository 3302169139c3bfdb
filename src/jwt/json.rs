//! JSON read once and strictly: an object, with no member twice on any level.
//!
//! Header and claims are read into this tree, which borrows from its text; what this crate checks
//! and what the application's type is filled from is the same tree, so the two cannot differ.

use std::{borrow::Cow, cell::Cell, collections::HashSet, fmt, sync::OnceLock};

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, EnumAccess, Error as _, Expected, IntoDeserializer, MapAccess, SeqAccess,
        Unexpected, VariantAccess, Visitor,
        value::{MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};

#[derive(Debug, PartialEq)]
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Self>),
    Object(Object<'a>),
}

#[derive(Debug, PartialEq)]
pub(crate) struct Object<'a> {
    members: Vec<(Cow<'a, str>, Json<'a>)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum JsonError {
    NotAnObject,
    DuplicateMember,
}

impl<'a> Json<'a> {
    /// Reads an object.
    pub(crate) fn object(text: &'a str) -> Result<Self, JsonError> {
        let duplicate = Cell::new(false);
        let mut json = Self::Null;
        let reader = Reader {
            slot: &mut json,
            duplicate: &duplicate,
        };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let read = reader
            .deserialize(&mut deserializer)
            .and_then(|()| deserializer.end());
        match read {
            Ok(()) if matches!(json, Self::Object(_)) => Ok(json),
            Err(_) if duplicate.get() => Err(JsonError::DuplicateMember),
            _ => Err(JsonError::NotAnObject),
        }
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, &Self)> {
        let members = match self {
            Self::Object(object) => object.members.as_slice(),
            _ => &[],
        };
        members.iter().map(|(name, value)| (&**name, value))
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Writes a value into its place in the tree: each is written once, where returning it would move
/// it from hand to hand. The flag tells a duplicate from any other fault of the text.
struct Reader<'r, 'a> {
    slot: &'r mut Json<'a>,
    duplicate: &'r Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Reader<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        *self.slot = Json::Null;
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        *self.slot = Json::Bool(value);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        *self.slot = Json::Signed(value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        *self.slot = Json::Unsigned(value);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        *self.slot = Json::Float(value);
        Ok(())
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<(), E> {
        *self.slot = Json::Text(Cow::Borrowed(value));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        *self.slot = Json::Text(Cow::Owned(value.to_owned()));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut items = Vec::new();
        let mut item = Json::Null;
        loop {
            let reader = Reader {
                slot: &mut item,
                duplicate: self.duplicate,
            };
            if list.next_element_seed(reader)?.is_none() {
                break;
            }
            items.push(std::mem::replace(&mut item, Json::Null));
        }
        *self.slot = Json::List(items);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut members: Vec<(Cow<'de, str>, Json<'de>)> = Vec::new();
        let mut sketches = 0u64;
        let mut seen: Option<HashSet<Cow<'de, str>>> = None;
        while let Some(Name(name)) = map.next_key()? {
            if members.is_empty() {
                if name == NUMBER && numbers_come_as_maps() {
                    let digits = map.next_value::<Cow<'de, str>>()?;
                    *self.slot = number(&digits).ok_or_else(|| A::Error::custom("number"))?;
                    return Ok(());
                }
                members.reserve(USUAL_MEMBERS);
            }
            // Comparing each with each, where their sketches are alike, is fastest for the few
            // members of a real token, and is not to be had for an attacker's many.
            let sketch = sketch(&name);
            let twice = match &mut seen {
                Some(seen) => !seen.insert(name.clone()),
                None if sketches & sketch == 0 => false,
                None => members.iter().any(|(member, _)| *member == name),
            };
            sketches |= sketch;
            if twice {
                self.duplicate.set(true);
                return Err(A::Error::custom("duplicate member"));
            }
            members.push((name, Json::Null));
            if let Some((_, slot)) = members.last_mut() {
                map.next_value_seed(Reader {
                    slot,
                    duplicate: self.duplicate,
                })?;
            }
            if seen.is_none() && members.len() > COMPARED_ONE_BY_ONE {
                seen = Some(members.iter().map(|(name, _)| name.clone()).collect());
            }
        }
        *self.slot = Json::Object(Object { members });
        Ok(())
    }
}

/// One bit that equal names have in common, and different ones mostly not.
fn sketch(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let first = bytes.first().map_or(0, |byte| usize::from(*byte));
    let last = bytes.last().map_or(0, |byte| usize::from(*byte));
    1 << ((first ^ last.wrapping_mul(7) ^ name.len().wrapping_mul(31)) & 63)
}

/// A member's name, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }

        deserializer.deserialize_str(NameVisitor)
    }
}

/// Whether some crate of the program enabled `serde_json/arbitrary_precision`, with which a number
/// reaches a visitor as a map of one member.
fn numbers_come_as_maps() -> bool {
    struct Probe(bool);

    impl<'de> Deserialize<'de> for Probe {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct ProbeVisitor;

            impl<'de> Visitor<'de> for ProbeVisitor {
                type Value = Probe;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a number")
                }

                fn visit_u64<E>(self, _: u64) -> Result<Probe, E> {
                    Ok(Probe(false))
                }

                fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Probe, A::Error> {
                    Ok(Probe(true))
                }
            }

            deserializer.deserialize_any(ProbeVisitor)
        }
    }

    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| serde_json::from_str::<Probe>("1").is_ok_and(|probe| probe.0))
}

fn number(digits: &str) -> Option<Json<'static>> {
    if let Ok(value) = digits.parse() {
        return Some(Json::Unsigned(value));
    }
    if let Ok(value) = digits.parse() {
        return Some(Json::Signed(value));
    }
    let value: f64 = digits.parse().ok()?;
    value.is_finite().then_some(Json::Float(value))
}

/// Fills the application's type from the tree.
impl<'de> Deserializer<'de> for &'de Json<'_> {
    type Error = Unfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        match self {
            Json::Null => visitor.visit_unit(),
            Json::Bool(value) => visitor.visit_bool(*value),
            Json::Signed(value) => visitor.visit_i64(*value),
            Json::Unsigned(value) => visitor.visit_u64(*value),
            Json::Float(value) => visitor.visit_f64(*value),
            Json::Text(text) => visitor.visit_borrowed_str(text),
            Json::List(items) => {
                let mut items = SeqDeserializer::new(items.iter());
                let value = visitor.visit_seq(&mut items)?;
                items.end().map(|()| value)
            }
            Json::Object(object) => {
                let members = object.members.iter();
                let mut members =
                    MapDeserializer::new(members.map(|(name, value)| (&**name, value)));
                let value = visitor.visit_map(&mut members)?;
                members.end().map(|()| value)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        match self {
            Json::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        match self {
            Json::Text(name) => visitor.visit_enum(Variant { name, value: None }),
            Json::Object(object) => match object.members.as_slice() {
                [(name, value)] => visitor.visit_enum(Variant {
                    name,
                    value: Some(value),
                }),
                _ => Err(Unfit::custom("expected one variant")),
            },
            _ => Err(Unfit::custom("expected a variant")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map struct identifier
    }
}

impl<'de> IntoDeserializer<'de, Unfit> for &'de Json<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

struct Variant<'de, 'a> {
    name: &'de str,
    value: Option<&'de Json<'a>>,
}

impl<'de> EnumAccess<'de> for Variant<'de, '_> {
    type Error = Unfit;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Unfit> {
        let name = seed.deserialize(self.name.into_deserializer())?;
        Ok((name, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de, '_> {
    type Error = Unfit;

    fn unit_variant(self) -> Result<(), Unfit> {
        match self.value {
            None | Some(Json::Null) => Ok(()),
            Some(_) => Err(Unfit::custom("expected a unit variant")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Unfit> {
        seed.deserialize(
            self.value
                .ok_or_else(|| Unfit::custom("expected a value"))?,
        )
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Unfit> {
        match self.value {
            Some(list @ Json::List(_)) => list.deserialize_any(visitor),
            _ => Err(Unfit::custom("expected a tuple variant")),
        }
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        match self.value {
            Some(object @ Json::Object(_)) => object.deserialize_any(visitor),
            _ => Err(Unfit::custom("expected a struct variant")),
        }
    }
}

/// Why the tree does not fit a type, in words that hold no value of the token.
#[derive(Debug)]
pub(crate) struct Unfit(Cow<'static, str>);

impl serde::de::Error for Unfit {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(Cow::Borrowed("a value is not one of its type"))
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self(format!("a value has the wrong type, not {expected}").into())
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self(format!("a value is not {expected}").into())
    }

    fn missing_field(field: &'static str) -> Self {
        Self(format!("`{field}` is missing").into())
    }

    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        Self(Cow::Borrowed("a member is not known to the type"))
    }

    fn unknown_variant(_: &str, _: &'static [&'static str]) -> Self {
        Self(Cow::Borrowed("a value is not one of the type's variants"))
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

const NUMBER: &str = "$serde_json::private::Number";
const USUAL_MEMBERS: usize = 12;
const COMPARED_ONE_BY_ONE: usize = 24;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::de::DeserializeOwned;

    use super::*;

    fn fill<T: DeserializeOwned>(text: &str) -> Result<T, Unfit> {
        T::deserialize(&Json::object(text).unwrap())
    }

    #[test]
    fn only_whole_objects_are_read() {
        for text in [
            "[1]",
            "1",
            "\"a\"",
            "null",
            "",
            "{",
            "{}x",
            "{} {}",
            "{\"a\":}",
            "{'a':1}",
            "{\"a\":NaN}",
            "{\"a\":1e999}",
            "{\"a\":01}",
            "{\"a\":\"\u{1}\"}",
        ] {
            assert_eq!(Json::object(text), Err(JsonError::NotAnObject), "{text}");
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        assert_eq!(Json::object(&deep), Err(JsonError::NotAnObject));
        assert!(Json::object(" { } ").is_ok());
    }

    #[test]
    fn a_member_twice_is_refused_on_every_level() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":{"b":1,"c":2,"b":3}}"#,
            r#"{"x":[{"b":1},{"b":1,"b":2}]}"#,
        ] {
            assert_eq!(
                Json::object(text),
                Err(JsonError::DuplicateMember),
                "{text}"
            );
        }
        let many = |last: usize| {
            let members: Vec<_> = (0..100)
                .chain([last])
                .map(|n| format!("\"m{n}\":0"))
                .collect();
            format!("{{{}}}", members.join(","))
        };
        assert!(Json::object(&many(100)).is_ok());
        for twice in [0, 23, 24, 25, 99] {
            assert_eq!(Json::object(&many(twice)), Err(JsonError::DuplicateMember));
        }
    }

    #[test]
    fn types_are_filled_as_serde_json_fills_them() {
        #[derive(Debug, Deserialize, PartialEq)]
        #[serde(rename_all = "snake_case")]
        enum Plan {
            Free,
            Seats(u32),
            Until { year: i32 },
            Pair(u8, String),
        }

        #[derive(Debug, Deserialize, PartialEq)]
        struct Wrapped(String);

        #[derive(Debug, Deserialize, PartialEq)]
        struct All {
            name: Wrapped,
            plans: Vec<Plan>,
            ratio: f64,
            whole: f64,
            none: Option<u8>,
            some: Option<u8>,
            big: i128,
            letter: char,
            pair: (bool, ()),
            #[serde(flatten)]
            rest: BTreeMap<String, serde_json::Value>,
        }

        let text = r#"{"name":"a\nb","plans":["free",{"seats":3},{"until":{"year":-4}},
            {"pair":[1,"x"]}],"ratio":0.5,"whole":2,"none":null,"some":7,"big":-9,"letter":"ß",
            "pair":[true,null],"more":{"x":[1,2.5,"y",null]}}"#;
        let ours: All = fill(text).unwrap();
        assert_eq!(ours, serde_json::from_str(text).unwrap());
        assert_eq!(
            fill::<serde_json::Value>(text).unwrap(),
            serde_json::from_str::<serde_json::Value>(text).unwrap()
        );
    }

    #[test]
    fn an_unfit_value_is_not_shown() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Strict {
            #[allow(dead_code)]
            level: u8,
        }

        for text in [
            r#"{"level":"hunter2"}"#,
            r#"{"level":1,"hunter2":1}"#,
            r#"{"level":99999}"#,
            r#"{}"#,
        ] {
            let error = fill::<Strict>(text).unwrap_err().to_string();
            assert!(
                !error.contains("hunter2") && !error.contains("99999"),
                "{error}"
            );
        }
    }

    #[test]
    fn numbers_of_any_precision_are_the_same_numbers() {
        assert_eq!(
            number("18446744073709551615"),
            Some(Json::Unsigned(u64::MAX))
        );
        assert_eq!(number("-1"), Some(Json::Signed(-1)));
        assert_eq!(number("1.5e3"), Some(Json::Float(1500.0)));
        assert_eq!(number("1e999"), None);
    }
}
