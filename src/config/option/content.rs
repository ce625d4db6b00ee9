//! How a class expression's `.text` sees the values that definitions describe.

use super::{Definition, Definitions, Family, Kind};
use crate::expr::{self, Content, Item, standard_sub_options_at};

impl Definitions {
    /// The definition of the option at `path`: the codes from the message's option down to it.
    #[must_use]
    pub fn at_path(&self, path: &[u16]) -> Option<&Definition> {
        let mut space = self.main_space();
        let mut found = None;
        for &code in path {
            let definition = self.by_code(space, code)?;
            space = &definition.encapsulates;
            found = Some(definition);
        }
        found
    }

    /// What the option at `path` holds.
    #[must_use]
    pub fn content(&self, path: &[u16]) -> Content {
        match (self.family(), path) {
            (Family::V4, [79]) => return Content::ServiceScope,
            (Family::V4, [81]) => return Content::ClientName,
            (Family::V4, [124]) | (Family::V6, [16]) => return Content::VendorClass,
            (Family::V4, [125]) | (Family::V6, [17]) => return Content::VendorInformation,
            _ => {}
        }
        let Some(definition) = self.at_path(path) else { return Content::Octets };
        let items = |items: Box<[Item]>| Content::Items { items, repeats: definition.array };
        match definition.kind {
            Kind::String => Content::Text,
            Kind::Empty if !definition.encapsulates.is_empty() => items(Box::default()),
            Kind::Empty => Content::Empty,
            Kind::Record => definition
                .fields
                .iter()
                .map(|kind| item(*kind))
                .collect::<Option<_>>()
                .map_or(Content::Octets, items),
            kind => match item(kind) {
                None | Some(Item::Octets) => Content::Octets,
                Some(item @ (Item::Address4 | Item::Address6)) if definition.array => {
                    Content::Addresses(item)
                }
                Some(item @ (Item::Signed(_) | Item::Unsigned(_))) if definition.array => {
                    Content::Integers(item)
                }
                Some(Item::Tuple) if definition.array => Content::Tuples,
                Some(item) => items([item].into()),
            },
        }
    }

    /// How many octets stand before the sub-options of the option at `path`; nothing when it has none.
    #[must_use]
    pub fn sub_options_at(&self, path: &[u16]) -> Option<u16> {
        let family = match self.family() {
            Family::V4 => expr::Family::V4,
            Family::V6 => expr::Family::V6,
        };
        if let Some(standard) = standard_sub_options_at(family, path) {
            return Some(standard);
        }
        let definition = self.at_path(path)?;
        if definition.encapsulates.is_empty() || definition.array {
            return None;
        }
        let size = |kind: Kind| match kind {
            Kind::Empty => Some(0),
            Kind::Boolean | Kind::Int8 | Kind::Uint8 => Some(1),
            Kind::Int16 | Kind::Uint16 => Some(2),
            Kind::Int32 | Kind::Uint32 | Kind::Ipv4 => Some(4),
            Kind::Ipv6 => Some(16),
            _ => None,
        };
        match definition.kind {
            Kind::Record => definition.fields.iter().map(|&kind| size(kind)).sum(),
            kind => size(kind),
        }
    }
}

const fn item(kind: Kind) -> Option<Item> {
    Some(match kind {
        Kind::Binary => Item::Octets,
        Kind::Boolean => Item::Boolean,
        Kind::Int8 => Item::Signed(1),
        Kind::Int16 => Item::Signed(2),
        Kind::Int32 => Item::Signed(4),
        Kind::Uint8 => Item::Unsigned(1),
        Kind::Uint16 => Item::Unsigned(2),
        Kind::Uint32 => Item::Unsigned(4),
        Kind::Ipv4 => Item::Address4,
        Kind::Ipv6 => Item::Address6,
        Kind::Ipv6Prefix => Item::Prefix,
        Kind::Psid => Item::PortSet,
        Kind::String => Item::Text,
        Kind::Tuple => Item::Tuple,
        Kind::Fqdn => Item::Name,
        Kind::Empty | Kind::Internal | Kind::Record => return None,
    })
}
