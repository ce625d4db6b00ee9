//! JSON values that know where they were written, the two dialects that Kea reads, and Kea's way of printing.
//!
//! A [`Value`] keeps its [`Span`], a map keeps its members in the order of the file with the place of every key:
//! whoever finds fault with a value can say where it stands. [`parse_file`] reads the dialect of files (comments,
//! includes, extra commas), [`parse_wire`] the plain one of the control API, [`compact`] and [`pretty`] print.
//!
//! Bounds: [`DEPTH_MAX`], [`INCLUDE_DEPTH_MAX`], [`INCLUDES_MAX`], [`INCLUDED_BYTES_MAX`].

mod file;
mod print;
mod wire;

use std::fmt;
use std::sync::Arc;

pub use file::{Loader, parse_file};
pub use print::{compact, pretty};
pub use wire::{Comments, parse_wire};

/// Deepest nesting of lists and maps: reading, checking and dropping a value recurse this far.
pub const DEPTH_MAX: usize = 128;
/// Deepest nesting of includes, as in Kea.
pub const INCLUDE_DEPTH_MAX: usize = 10;
/// Most includes of one configuration: files that include each other would multiply without end.
pub const INCLUDES_MAX: usize = 1000;
/// Most octets that includes of one configuration bring in, together.
pub const INCLUDED_BYTES_MAX: usize = 1 << 28;

/// A text that was parsed, by its position in [`Files`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u16);

/// The names of the texts that values came from: files as given on the command line, `<wire>`, `<string>`.
#[derive(Clone, Debug, Default)]
pub struct Files {
    names: Vec<Arc<str>>,
}

impl Files {
    /// Adds a name; the last possible id is shared by all names after it.
    pub fn add(&mut self, name: &str) -> FileId {
        let index = u16::try_from(self.names.len()).unwrap_or(u16::MAX);
        if usize::from(index) == self.names.len() {
            self.names.push(Arc::from(name));
        }
        FileId(index)
    }

    /// The name of `file`; `?` when it is none of these.
    #[must_use]
    pub fn name(&self, file: FileId) -> &str {
        self.names.get(usize::from(file.0)).map_or("?", |name| name)
    }

    /// The name of `file`, shared.
    #[must_use]
    pub fn shared_name(&self, file: FileId) -> Arc<str> {
        self.names.get(usize::from(file.0)).cloned().unwrap_or_else(|| Arc::from("?"))
    }
}

/// A stretch of text: lines and columns count from 1, columns count octets, the last ones are inclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The text.
    pub file: FileId,
    /// Line of the first octet.
    pub line: u32,
    /// Column of the first octet.
    pub column: u32,
    /// Line of the last octet.
    pub last_line: u32,
    /// Column of the last octet.
    pub last_column: u32,
}

/// A value with its place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Value {
    /// Where it was written.
    pub at: Span,
    /// What it is.
    pub data: Data,
}

/// What a value is.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Data {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without point and exponent.
    Integer(i64),
    /// A number with point or exponent; finite.
    Double(f64),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// A map.
    Map(Map),
}

/// A map: members in the order of the text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    members: Vec<Member>,
}

/// One member of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The key.
    pub key: String,
    /// Where the key was written, quotes included.
    pub key_at: Span,
    /// The value.
    pub value: Value,
}

impl Member {
    /// The place that Kea names for this value: of a list or map its key, of anything else the value.
    #[must_use]
    pub const fn place(&self) -> Span {
        match self.value.data {
            Data::List(_) | Data::Map(_) => self.key_at,
            _ => self.value.at,
        }
    }
}

impl Value {
    /// The integer, when it is one.
    #[must_use]
    pub const fn as_integer(&self) -> Option<i64> {
        if let Data::Integer(number) = self.data { Some(number) } else { None }
    }

    /// The number, when it has a point or exponent.
    #[must_use]
    pub const fn as_double(&self) -> Option<f64> {
        if let Data::Double(number) = self.data { Some(number) } else { None }
    }

    /// The truth value, when it is one.
    #[must_use]
    pub const fn as_bool(&self) -> Option<bool> {
        if let Data::Bool(truth) = self.data { Some(truth) } else { None }
    }

    /// The text, when it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Data::Text(text) = &self.data { Some(text) } else { None }
    }

    /// The elements, when it is a list.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Self]> {
        if let Data::List(elements) = &self.data { Some(elements) } else { None }
    }

    /// The map, when it is one.
    #[must_use]
    pub const fn as_map(&self) -> Option<&Map> {
        if let Data::Map(map) = &self.data { Some(map) } else { None }
    }

    /// The same value without places. Of several members with one key the last stays.
    #[must_use]
    pub fn to_serde(&self) -> serde_json::Value {
        match &self.data {
            Data::Null => serde_json::Value::Null,
            Data::Bool(truth) => (*truth).into(),
            Data::Integer(number) => (*number).into(),
            Data::Double(number) => (*number).into(),
            Data::Text(text) => text.as_str().into(),
            Data::List(elements) => elements.iter().map(Self::to_serde).collect(),
            Data::Map(map) => serde_json::Value::Object(
                map.members.iter().map(|member| (member.key.clone(), member.value.to_serde())).collect(),
            ),
        }
    }

    /// A value from one without places. An integer beyond 64 bits with sign becomes a double.
    #[must_use]
    pub fn from_serde(value: &serde_json::Value) -> Self {
        let data = match value {
            serde_json::Value::Null => Data::Null,
            serde_json::Value::Bool(truth) => Data::Bool(*truth),
            serde_json::Value::Number(number) => {
                number.as_i64().map_or_else(|| Data::Double(number.as_f64().unwrap_or(0.0)), Data::Integer)
            }
            serde_json::Value::String(text) => Data::Text(text.clone()),
            serde_json::Value::Array(elements) => Data::List(elements.iter().map(Self::from_serde).collect()),
            serde_json::Value::Object(members) => Data::Map(Map {
                members: members
                    .iter()
                    .map(|(key, value)| Member {
                        key: key.clone(),
                        key_at: Span::default(),
                        value: Self::from_serde(value),
                    })
                    .collect(),
            }),
        };
        Self { at: Span::default(), data }
    }
}

impl Map {
    /// The value of `key`; of several the last.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<&Value> {
        self.member(key).map(|member| &member.value)
    }

    /// The member `key`; of several the last.
    #[must_use]
    pub fn member(&self, key: &str) -> Option<&Member> {
        self.members.iter().rev().find(|member| member.key == key)
    }

    /// The members in order.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The members in order, taken out.
    #[must_use]
    pub fn into_members(self) -> Vec<Member> {
        self.members
    }

    /// Adds a member at the end, whether or not its key is there already.
    pub fn push(&mut self, member: Member) {
        self.members.push(member);
    }
}

/// Something with the place it was written at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placed<T> {
    /// The thing.
    pub value: T,
    /// Where it was written.
    pub at: Span,
}

impl<T: fmt::Display> fmt::Display for Placed<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(out)
    }
}
