//! JSON values that know where they were written.
//!
//! A [`Value`] keeps its [`Span`], a map keeps its members in the order of the file with the place of every key:
//! whoever finds fault with a value can say where it stands.

use std::fmt;
use std::sync::Arc;

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
        FileId(index.min(u16::MAX - 1))
    }

    /// The name of `file`; `?` when it is none of these.
    #[must_use]
    pub fn name(&self, file: FileId) -> &str {
        self.names.get(usize::from(file.0)).map_or("?", |name| name)
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

impl Map {
    /// The value of `key`; of several the last.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<&Value> {
        self.members.iter().rev().find(|member| member.key == key).map(|member| &member.value)
    }

    /// The members in order.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
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
