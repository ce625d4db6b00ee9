//! What a query's options must look like by the definitions of a configuration.

use std::collections::HashMap;

use super::encode::{LONG_TUPLES, size};
use super::{Definition, Definitions, Kind};
use crate::wire::shape::Shape;
use crate::wire::shapes::{Field, Record, Shapes, Space, Tail};

const AGENT_OPTIONS: u8 = 82;
const RELAY_AGENT_SPACE: &str = "dhcp-agent-options-space";

/// Options whose meaning depends on a client's class. Kea gives them their definition only when the classes are known, and keeps
/// what does not fit as it came.
const fn is_of_a_class(code: u8) -> bool {
    code == 43 || code >= 224
}

impl Definitions {
    /// The shapes of DHCPv4 options: the standard ones, and those of the definitions that were added.
    #[must_use]
    pub fn shapes(&self) -> Shapes {
        let mut builder = Builder { definitions: self, shapes: Shapes::standard(), spaces: HashMap::new() };
        for definition in self.added_to(self.main_space()) {
            let Ok(code) = u8::try_from(definition.code) else { continue };
            if !is_of_a_class(code) {
                let shape = builder.shape(definition);
                builder.shapes.define(code, shape);
            }
        }
        // Kea itself defines none of these.
        if let Some(space) = builder.space(RELAY_AGENT_SPACE) {
            let carrier = builder.shapes.record(Record { fields: [].into(), tail: Tail::SubOptions(space) });
            builder.shapes.define(AGENT_OPTIONS, carrier);
        }
        builder.shapes
    }
}

struct Builder<'a> {
    definitions: &'a Definitions,
    shapes: Shapes,
    spaces: HashMap<&'a str, Space>,
}

impl<'a> Builder<'a> {
    /// The space called `name`; nothing when the configuration defines nothing in it.
    fn space(&mut self, name: &'a str) -> Option<Space> {
        if let Some(space) = self.spaces.get(name) {
            return Some(*space);
        }
        let definitions = self.definitions;
        let list = definitions.added_to(name);
        if list.is_empty() || name == definitions.main_space() {
            return None;
        }
        let space = self.shapes.space()?;
        // Noted before its own definitions are looked at: one of them may lead back to it.
        self.spaces.insert(name, space);
        for definition in list {
            let Ok(code) = u8::try_from(definition.code) else { continue };
            let shape = self.shape(definition);
            self.shapes.define_within(space, code, shape);
        }
        Some(space)
    }

    fn shape(&mut self, definition: &'a Definition) -> Shape {
        let field = field(definition.kind, definition.code);
        if definition.array && definition.kind != Kind::Record {
            return match (definition.kind, field) {
                (Kind::Fqdn, _) => Shape::Names,
                (Kind::Tuple, Field::LongTuple) => Shape::LongTuples,
                (Kind::Tuple, _) => Shape::Tuples,
                (Kind::Ipv4, _) => Shape::Addresses(4),
                (Kind::Ipv6, _) => Shape::Addresses(16),
                (Kind::Psid, _) => self.record([field], Tail::Repeats(field)),
                (_, Field::Octets(bytes)) => Shape::Integers(bytes),
                // Prefixes, of which there may be none.
                _ => self.record([], Tail::Repeats(field)),
            };
        }
        let tail = self.space(&definition.encapsulates).map_or(Tail::Nothing, Tail::SubOptions);
        match (definition.kind, tail) {
            (Kind::Binary | Kind::Internal, _) => Shape::Any,
            (Kind::String, _) => Shape::Text,
            (Kind::Empty, Tail::Nothing) if definition.encapsulates.is_empty() => Shape::Scalar(0),
            (Kind::Empty, Tail::Nothing) => Shape::SubOptions,
            (Kind::Empty, _) => self.record([], tail),
            (Kind::Fqdn, Tail::Nothing) => Shape::NameAfter(0),
            (Kind::Record, _) => self.fields(definition, tail),
            (_, tail) => match (field, tail) {
                (Field::Octets(bytes), Tail::Nothing) => Shape::Scalar(bytes),
                (field, tail) => self.record([field], tail),
            },
        }
    }

    fn fields(&mut self, definition: &Definition, tail: Tail) -> Shape {
        let fields: Box<[Field]> =
            definition.fields.iter().map(|kind| field(*kind, definition.code)).collect();
        let repeats = fields.last().copied().filter(|_| definition.array);
        self.record(fields, repeats.map_or(tail, Tail::Repeats))
    }

    fn record(&mut self, fields: impl Into<Box<[Field]>>, tail: Tail) -> Shape {
        self.shapes.record(Record { fields: fields.into(), tail })
    }
}

fn field(kind: Kind, code: u16) -> Field {
    match kind {
        Kind::Fqdn => Field::Name,
        Kind::Ipv6Prefix => Field::Prefix,
        Kind::Tuple if code == LONG_TUPLES => Field::LongTuple,
        Kind::Tuple => Field::Tuple,
        kind => {
            let bytes = size(kind).and_then(|bytes| u8::try_from(bytes).ok());
            bytes.map_or(Field::Rest, Field::Octets)
        }
    }
}
