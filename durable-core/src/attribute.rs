//! Attributes: what workflows can be found by. Their types, their bounds, and the form in which they are stored.

use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};

/// Attributes of one workflow.
pub(crate) const ATTRIBUTES_MAX: usize = 32;

/// Bytes of a name, and of a text. With the workflow's id they share an entry of an index, which ends at 2,704 bytes.
const NAME_MAX: usize = 64;
const TEXT_MAX: usize = 512;

/// The value of an attribute. Made from a text, an integer, a float, a `bool` or a time where one is asked for. Kinds do not
/// mix: the integer 5 is not the float 5.0.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum AttributeValue {
    /// A text of up to 512 bytes without control characters, which may be empty. Texts are in the order of their bytes.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number; not NaN.
    Float(f64),
    /// Yes or no; no comes first.
    Bool(bool),
    /// A time, to the microsecond.
    Time(DateTime<Utc>),
}

macro_rules! value_from {
    ($($from:ty => |$given:ident| $made:expr;)*) => {
        $(impl From<$from> for AttributeValue {
            fn from($given: $from) -> Self {
                $made
            }
        })*
    };
}
value_from! {
    String => |text| Self::Text(text);
    &str => |text| Self::Text(text.to_owned());
    &String => |text| Self::Text(text.clone());
    i64 => |number| Self::Integer(number);
    i32 => |number| Self::Integer(number.into());
    u32 => |number| Self::Integer(number.into());
    f64 => |number| Self::Float(number);
    bool => |answer| Self::Bool(answer);
    DateTime<Utc> => |time| Self::Time(time);
}

/// An attribute of a workflow, as [`Handle::attributes`](crate::Handle::attributes) reads it.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: AttributeValue,
    /// Whether the body has set it; otherwise it was given at the start.
    pub by_body: bool,
}

/// An attribute as it is stored.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct StoredAttribute {
    pub(crate) name: String,
    /// As a person reads it: JSON.
    pub(crate) value: String,
    pub(crate) sort: String,
}

impl StoredAttribute {
    /// Check it; what is wrong with it, if something is.
    pub(crate) fn new(name: &str, value: &AttributeValue) -> Result<Self, String> {
        check_name(name)?;
        let problem = |problem: String| format!("attribute {name:?} {problem}");
        Ok(Self { name: name.to_owned(), value: value.json(), sort: value.sort().map_err(problem)? })
    }

    /// Its size on the wire, about.
    pub(crate) fn bytes(&self) -> usize {
        48 + self.name.len() + self.value.len() + self.sort.len()
    }
}

/// What is wrong with the name of an attribute, if something is.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    match name.len() {
        0 => Err("the name of an attribute is empty: give it one".to_owned()),
        1..=NAME_MAX if !name.chars().any(char::is_control) => Ok(()),
        1..=NAME_MAX => Err(format!("the name of attribute {name:?} holds a control character: leave it out")),
        long => Err(format!("the name of an attribute has {long} bytes, at most {NAME_MAX} are allowed")),
    }
}

/// All attributes of a start, checked; nothing where there are none.
pub(crate) fn stored(given: &[(String, AttributeValue)]) -> Result<Option<Arc<[StoredAttribute]>>, String> {
    if given.is_empty() {
        return Ok(None);
    }
    if given.len() > ATTRIBUTES_MAX {
        return Err(format!("it has {} attributes, at most {ATTRIBUTES_MAX} are allowed", given.len()));
    }
    let mut all = Vec::with_capacity(given.len());
    for (name, value) in given {
        if all.iter().any(|other: &StoredAttribute| other.name == *name) {
            return Err(format!("attribute {name:?} is given twice"));
        }
        all.push(StoredAttribute::new(name, value)?);
    }
    Ok(Some(all.into()))
}

impl AttributeValue {
    /// A text whose order, byte by byte, is that of the values of a kind; its first letter is that of the kind. What is wrong
    /// with the value, if something is.
    pub(crate) fn sort(&self) -> Result<String, String> {
        const SIGN: u64 = 1 << 63;
        match self {
            AttributeValue::Text(text) if text.len() > TEXT_MAX => {
                Err(format!("has {} bytes, at most {TEXT_MAX} are allowed: use a hash of it", text.len()))
            }
            AttributeValue::Text(text) if text.chars().any(char::is_control) => {
                Err("holds a control character: leave it out".to_owned())
            }
            AttributeValue::Text(text) => Ok(format!("s{text}")),
            AttributeValue::Integer(number) => Ok(format!("i{:016x}", number.cast_unsigned() ^ SIGN)),
            AttributeValue::Float(number) if number.is_nan() => Err("is no number".to_owned()),
            AttributeValue::Float(number) => {
                // There is one zero, and the larger a negative number's bits are, the smaller it is.
                let bits = (number + 0.0).to_bits();
                Ok(format!("f{:016x}", if bits & SIGN == 0 { bits | SIGN } else { !bits }))
            }
            AttributeValue::Bool(answer) => Ok(format!("b{}", u8::from(*answer))),
            AttributeValue::Time(time) => Ok(format!("t{:016x}", time.timestamp_micros().cast_unsigned() ^ SIGN)),
        }
    }

    /// As a person reads it. What JSON has no number for is a text in it.
    fn json(&self) -> String {
        match self {
            AttributeValue::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
            AttributeValue::Integer(number) => number.to_string(),
            AttributeValue::Float(number) if number.is_finite() => serde_json::Value::from(*number).to_string(),
            AttributeValue::Float(number) => format!("\"{number}\""),
            AttributeValue::Bool(answer) => answer.to_string(),
            AttributeValue::Time(time) => format!("\"{}\"", time.to_rfc3339_opts(SecondsFormat::Micros, true)),
        }
    }

    /// Read what is stored; `None` when a newer version wrote it.
    pub(crate) fn read(sort: &str) -> Option<Self> {
        const SIGN: u64 = 1 << 63;
        let (kind, rest) = sort.split_at_checked(1)?;
        let bits = || u64::from_str_radix(rest, 16).ok();
        match kind {
            "s" => Some(AttributeValue::Text(rest.to_owned())),
            "i" => Some(AttributeValue::Integer((bits()? ^ SIGN).cast_signed())),
            "f" => {
                let bits = bits()?;
                Some(AttributeValue::Float(f64::from_bits(if bits & SIGN == 0 { !bits } else { bits ^ SIGN })))
            }
            "b" => Some(AttributeValue::Bool(rest == "1")),
            "t" => DateTime::from_timestamp_micros((bits()? ^ SIGN).cast_signed()).map(AttributeValue::Time),
            _ => None,
        }
    }
}

/// How an attribute has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bound {
    Equal,
    From,
    Before,
}

/// What is asked of an attribute: its sort is in a range.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Condition {
    pub(crate) name: String,
    pub(crate) from: String,
    pub(crate) before: String,
    /// The range has one value.
    pub(crate) equal: bool,
}

/// Conditions of one list.
const CONDITIONS_MAX: usize = 8;

impl Condition {
    /// What is asked in a call; what is wrong with it, if something is.
    fn new(name: &str, bound: Bound, value: &AttributeValue) -> Result<Self, String> {
        let StoredAttribute { name, sort, .. } = StoredAttribute::new(name, value)?;
        // Kinds are named by letters, and no text has a control character in it.
        let kind = sort.chars().next().unwrap_or_default();
        let next_kind = char::from_u32(u32::from(kind) + 1).unwrap_or_default();
        let (from, before) = match bound {
            Bound::Equal => (sort.clone(), sort + "\u{1}"),
            Bound::From => (sort, next_kind.to_string()),
            Bound::Before => (kind.to_string(), sort),
        };
        Ok(Self { name, from, before, equal: bound == Bound::Equal })
    }

    /// Whether two of these are the two ends of one range.
    fn continues(&self, other: &Self) -> bool {
        self.name == other.name && !self.equal && !other.equal && self.from.as_bytes()[0] == other.from.as_bytes()[0]
    }
}

/// All that is asked, checked; the one by which to look comes first: that of which there are fewest, as far as one can say.
pub(crate) fn conditions(asked: &[(String, Bound, AttributeValue)]) -> Result<Vec<Condition>, String> {
    if asked.len() > CONDITIONS_MAX {
        return Err(format!("{} attributes are asked for, at most {CONDITIONS_MAX} can be", asked.len()));
    }
    let mut all: Vec<Condition> = Vec::with_capacity(asked.len());
    for (name, bound, value) in asked {
        let new = Condition::new(name, *bound, value)?;
        match all.iter_mut().find(|other| other.continues(&new)) {
            Some(other) => {
                other.from = std::cmp::max(std::mem::take(&mut other.from), new.from);
                other.before = std::cmp::min(std::mem::take(&mut other.before), new.before);
            }
            None => all.push(new),
        }
    }
    all.sort_by_key(|condition| !condition.equal);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_in_order_as_texts_and_come_back() {
        let time = |text: &str| AttributeValue::Time(text.parse().unwrap());
        let kinds: [Vec<AttributeValue>; 5] = [
            ["", "B", "a", "ab", "ß", "🦀"].map(AttributeValue::from).into(),
            [i64::MIN, -256, -1, 0, 1, 255, 256, i64::MAX].map(AttributeValue::from).into(),
            [f64::NEG_INFINITY, -1e300, -1.5, -1e-300, 0.0, 1e-300, 0.5, 1.5, 1e300, f64::INFINITY]
                .map(AttributeValue::from)
                .into(),
            [false, true].map(AttributeValue::from).into(),
            ["1900-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2026-11-26T15:00:00.000001Z"].map(time).into(),
        ];
        for values in kinds {
            let sorts: Vec<String> = values.iter().map(|value| value.sort().unwrap()).collect();
            assert!(sorts.is_sorted_by(|a, b| a.as_bytes() < b.as_bytes()), "{sorts:?}");
            for (value, sort) in values.iter().zip(&sorts) {
                assert_eq!(AttributeValue::read(sort).as_ref(), Some(value));
                assert!(serde_json::from_str::<serde_json::Value>(&value.json()).is_ok(), "{}", value.json());
            }
        }
        assert_eq!(AttributeValue::from(-0.0).sort(), AttributeValue::from(0.0).sort());
    }

    #[test]
    fn the_ends_of_a_range_are_one_condition_and_what_is_equal_comes_first() {
        let asked = [
            ("total".to_owned(), Bound::From, 5.into()),
            ("city".to_owned(), Bound::Equal, "Bonn".into()),
            ("total".to_owned(), Bound::Before, 9.into()),
            ("total".to_owned(), Bound::Before, 9.5.into()),
        ];
        let conditions = conditions(&asked).unwrap();
        let told: Vec<_> = conditions.iter().map(|c| (&*c.name, &*c.from, &*c.before)).collect();
        assert_eq!(
            told,
            [
                ("city", "sBonn", "sBonn\u{1}"),
                ("total", "i8000000000000005", "i8000000000000009"),
                ("total", "f", "fc023000000000000"),
            ]
        );
    }

    #[test]
    fn what_cannot_be_stored_says_why() {
        for (name, value, told) in [
            ("", AttributeValue::from(1), "name of an attribute is empty"),
            (&*"n".repeat(65), 1.into(), "65 bytes, at most 64"),
            ("a\nb", 1.into(), "control character"),
            ("x", "t".repeat(513).into(), "attribute \"x\" has 513 bytes, at most 512"),
            ("x", "a\0".into(), "control character"),
            ("x", f64::NAN.into(), "is no number"),
        ] {
            let problem = StoredAttribute::new(name, &value).unwrap_err();
            assert!(problem.contains(told), "{problem}");
        }
        let many = |n: i64| (0..n).map(|n| (format!("a{n}"), n.into())).collect::<Vec<_>>();
        assert!(stored(&many(32)).is_ok() && stored(&many(33)).unwrap_err().contains("33 attributes, at most 32"));
        assert!(stored(&[("a".into(), 1.into()), ("a".into(), 2.into())]).unwrap_err().contains("twice"));
    }
}
