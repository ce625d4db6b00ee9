//! The shape of every DHCPv4 option: the standard ones, and those that a configuration defines.
//!
//! What becomes of content that does not fit its definition was measured with Kea 2.2, type by type and length by length: it fails the
//! packet where it is too short, surplus octets are cut off, a list ends with its last whole element. Sub-options that a
//! definition encapsulates are judged by the definitions of their space.
//!
//! In one thing this is milder than Kea, which takes a name for as long as its text is: the root, and names with octets
//! that are escaped in text, are refused there although they are whole.

use super::name;
use super::option::Walk;
use super::shape::{Plain, SHAPES, Shape, Verdict};

/// What no configuration has changed.
pub static STANDARD: Shapes = Shapes::standard();

/// How deep sub-options are judged: spaces may encapsulate each other.
const DEPTH_MAX: u8 = 8;

/// One field of a [`Record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// This many octets, at least one.
    Octets(u8),
    /// A count of bits and as many octets as they take; behind other fields it may be missing.
    Prefix,
    /// A one-octet length and as many octets.
    Tuple,
    /// A two-octet length and as many octets.
    LongTuple,
    /// A domain name.
    Name,
    /// Everything that is left.
    Rest,
}

/// What may stand behind the fields of a [`Record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing: it is cut off.
    Nothing,
    /// More fields of this kind.
    Repeats(Field),
    /// Sub-options of this space; those from the first cut one on are cut off.
    SubOptions(Space),
}

/// Fields one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The fields.
    pub fields: Box<[Field]>,
    /// What comes behind them.
    pub tail: Tail,
}

/// A space of sub-options, by its position among those of a [`Shapes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space(u16);

/// The shapes that hold: looked at for every option of every packet, so the lengths at which there is nothing more to
/// look at stand in a table of their own.
#[derive(Clone, Debug)]
pub struct Shapes {
    plain: [Plain; 256],
    shapes: [Shape; 256],
    records: Vec<Record>,
    /// The shapes in each space of sub-options; codes that are not there have any content.
    spaces: Vec<Vec<(u8, Shape)>>,
}

impl Shapes {
    /// The standard shapes and no others.
    #[must_use]
    pub const fn standard() -> Self {
        let mut plain = [Plain::of(Shape::Any); 256];
        let mut code = 0;
        while code < plain.len() {
            plain[code] = Plain::of(SHAPES[code]);
            code += 1;
        }
        Self { plain, shapes: SHAPES, records: Vec::new(), spaces: Vec::new() }
    }

    /// From now on option `code` has this shape.
    pub fn define(&mut self, code: u8, shape: Shape) {
        self.plain[usize::from(code)] = Plain::of(shape);
        self.shapes[usize::from(code)] = shape;
    }

    /// A new space of sub-options; nothing when there are 65,536.
    pub fn space(&mut self) -> Option<Space> {
        let space = u16::try_from(self.spaces.len()).ok()?;
        self.spaces.push(Vec::new());
        Some(Space(space))
    }

    /// From now on sub-option `code` of `space` has this shape.
    pub fn define_within(&mut self, space: Space, code: u8, shape: Shape) {
        self.spaces[usize::from(space.0)].push((code, shape));
    }

    /// The shape of such a record; anything when there are 65,536.
    pub fn record(&mut self, record: Record) -> Shape {
        let Ok(index) = u16::try_from(self.records.len()) else { return Shape::Any };
        self.records.push(record);
        Shape::Defined(index)
    }

    /// Whether `len` octets of option `code` fit whatever they are: [`Self::check`] would say so, and looks at every payload
    /// of which this is false.
    #[inline]
    pub(super) fn is_plain(&self, code: u8, len: u16) -> bool {
        self.plain[usize::from(code)].has(len)
    }

    /// Judges the payload of option `code`. `lenient` forgives what stands after the first good name or tuple.
    pub(super) fn check(&self, code: u8, data: &[u8], lenient: bool) -> Verdict {
        self.judge(self.shapes[usize::from(code)], data, lenient, 0)
    }

    fn judge(&self, shape: Shape, data: &[u8], lenient: bool, depth: u8) -> Verdict {
        match shape {
            Shape::Defined(index) => {
                self.judge_record(&self.records[usize::from(index)], data, lenient, depth)
            }
            shape => shape.check(data, lenient),
        }
    }

    fn judge_record(&self, record: &Record, data: &[u8], lenient: bool, depth: u8) -> Verdict {
        if data.is_empty() && !record.fields.is_empty() {
            return Verdict::Malformed;
        }
        let mut at = 0;
        for field in &record.fields {
            let Reach::End(end) = field.reach(data, at) else { return Verdict::Malformed };
            at = end;
        }
        match record.tail {
            Tail::Nothing => {}
            Tail::Repeats(field) => {
                while at < data.len() {
                    match field.reach(data, at) {
                        Reach::End(end) => at = end,
                        Reach::Short => break,
                        Reach::Bad if lenient => break,
                        Reach::Bad => return Verdict::Malformed,
                    }
                }
            }
            Tail::SubOptions(space) => {
                let mut walk = Walk::<1>::new(&data[at..]);
                for option in walk.by_ref() {
                    if depth < DEPTH_MAX
                        && let Some(shape) = self.shape_within(space, option.code)
                        && self.judge(shape, option.data, lenient, depth + 1) == Verdict::Malformed
                    {
                        return Verdict::Malformed;
                    }
                }
                at = data.len() - walk.rest().len();
            }
        }
        if at == data.len() { Verdict::Fits } else { Verdict::Cut(at) }
    }

    fn shape_within(&self, space: Space, code: u16) -> Option<Shape> {
        let known = &self.spaces[usize::from(space.0)];
        known.iter().find(|(known, _)| u16::from(*known) == code).map(|(_, shape)| *shape)
    }
}

/// How far a field goes.
enum Reach {
    /// To here.
    End(usize),
    /// Further than there are octets of it.
    Short,
    /// It is none.
    Bad,
}

impl Field {
    /// Where the field that begins at `at` of `data` ends.
    fn reach(self, data: &[u8], at: usize) -> Reach {
        let rest = data.get(at..).unwrap_or_default();
        let (len, too_long) = match self {
            Self::Octets(bytes) => (Some(usize::from(bytes.max(1))), Reach::Short),
            Self::Prefix => {
                let bits = rest.first().copied().map(usize::from);
                (Some(bits.map_or(0, |bits| 1 + bits.div_ceil(8))), Reach::Bad)
            }
            Self::Tuple => (rest.first().map(|len| 1 + usize::from(*len)), Reach::Bad),
            Self::LongTuple => {
                let len = rest.first_chunk().map(|len| usize::from(u16::from_be_bytes(*len)));
                (len.map(|len| 2 + len), Reach::Bad)
            }
            Self::Name => (name::wire_len(rest), Reach::Bad),
            Self::Rest => (Some(rest.len()), Reach::Bad),
        };
        match len {
            Some(len) if len <= rest.len() => Reach::End(at + len),
            Some(_) => too_long,
            None => Reach::Bad,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(shape: impl FnOnce(&mut Shapes) -> Shape) -> Shapes {
        let mut shapes = Shapes::standard();
        let shape = shape(&mut shapes);
        shapes.define(200, shape);
        shapes
    }

    fn fields(fields: &[Field], tail: Tail) -> Shapes {
        with(|shapes| shapes.record(Record { fields: fields.into(), tail }))
    }

    #[test]
    fn what_is_plain_fits_whatever_it_holds() {
        let mut shapes = Shapes::standard();
        for (code, shape) in [
            (200, Shape::Scalar(16)),
            (201, Shape::Addresses(16)),
            (202, Shape::Integers(4)),
            (203, Shape::Scalar(0)),
        ] {
            shapes.define(code, shape);
        }
        let record =
            shapes.record(Record { fields: [Field::Octets(1), Field::Tuple].into(), tail: Tail::Nothing });
        shapes.define(204, record);
        for shapes in [&STANDARD, &shapes] {
            for code in 0..=u8::MAX {
                for len in 0..=255_u8 {
                    for octet in [0, 1, 0xff] {
                        let data = vec![octet; usize::from(len)];
                        assert!(
                            !shapes.is_plain(code, u16::from(len))
                                || shapes.check(code, &data, false) == Verdict::Fits,
                            "{code}, {len} octets"
                        );
                    }
                }
            }
        }
        // Not all, or nothing would be saved.
        let plain = |code, len| STANDARD.is_plain(code, len);
        assert!(plain(55, 9) && plain(50, 4) && plain(61, 7) && !plain(50, 3) && !plain(12, 3));
        assert!(shapes.is_plain(201, 32) && !shapes.is_plain(201, 4) && shapes.is_plain(202, 8));
    }

    #[test]
    fn every_field_of_a_record_must_be_there() {
        let shapes = fields(&[Field::Octets(1), Field::Octets(2), Field::Octets(4)], Tail::Nothing);
        assert_eq!(shapes.check(200, &[0; 6], false), Verdict::Malformed);
        assert_eq!(shapes.check(200, &[0; 7], false), Verdict::Fits);
        assert_eq!(shapes.check(200, &[0; 9], false), Verdict::Cut(7));
        let shapes = fields(&[Field::Tuple, Field::Octets(1)], Tail::Nothing);
        assert_eq!(shapes.check(200, &[1, b'a', 0], false), Verdict::Fits);
        assert_eq!(shapes.check(200, &[1, b'a'], false), Verdict::Malformed);
        let shapes = fields(&[Field::Octets(1), Field::Rest], Tail::Nothing);
        assert_eq!(shapes.check(200, &[], false), Verdict::Malformed);
        assert_eq!(shapes.check(200, &[7], false), Verdict::Fits);
        let shapes = fields(&[Field::LongTuple], Tail::Nothing);
        assert_eq!(shapes.check(200, &[0, 1, b'a', 9], false), Verdict::Cut(3));
        assert_eq!(shapes.check(200, &[0], false), Verdict::Malformed);
    }

    #[test]
    fn a_repeated_field_ends_with_the_last_whole_one() {
        let shapes = fields(&[Field::Octets(1), Field::Octets(4)], Tail::Repeats(Field::Octets(4)));
        assert_eq!(shapes.check(200, &[0; 4], false), Verdict::Malformed);
        assert_eq!(shapes.check(200, &[0; 9], false), Verdict::Fits);
        assert_eq!(shapes.check(200, &[0; 12], false), Verdict::Cut(9));
        let shapes = fields(&[Field::Octets(1), Field::Prefix], Tail::Nothing);
        assert_eq!(shapes.check(200, &[0], false), Verdict::Fits);
        assert_eq!(fields(&[Field::Prefix], Tail::Nothing).check(200, &[], false), Verdict::Malformed);
        let shapes = fields(&[Field::Octets(1)], Tail::Repeats(Field::Prefix));
        assert_eq!(shapes.check(200, &[0, 9, 1, 2, 0], false), Verdict::Fits);
        assert_eq!(shapes.check(200, &[0, 9, 1, 2, 1], false), Verdict::Malformed);
        assert_eq!(shapes.check(200, &[0, 9, 1, 2, 1], true), Verdict::Cut(4));
        let shapes = fields(&[Field::Octets(1), Field::Name], Tail::Repeats(Field::Name));
        assert_eq!(shapes.check(200, &[0, 1, b'a', 0, 1, b'b', 0], false), Verdict::Fits);
        assert_eq!(shapes.check(200, &[0, 1, b'a', 0, 1, b'b'], false), Verdict::Malformed);
    }

    #[test]
    fn sub_options_are_judged_by_their_space_and_end_at_a_cut_one() {
        let shapes = with(|shapes| {
            let (outer, inner) = (shapes.space().expect("room"), shapes.space().expect("room"));
            shapes.define_within(outer, 1, Shape::Scalar(4));
            let carrier = shapes.record(Record { fields: [].into(), tail: Tail::SubOptions(inner) });
            shapes.define_within(outer, 4, carrier);
            shapes.define_within(inner, 1, Shape::Scalar(2));
            shapes.record(Record { fields: [Field::Octets(1)].into(), tail: Tail::SubOptions(outer) })
        });
        let check = |data: &[u8]| shapes.check(200, data, false);
        assert_eq!(check(&[]), Verdict::Malformed);
        assert_eq!(check(&[9]), Verdict::Fits);
        assert_eq!(check(&[9, 1, 4, 0, 0, 0, 1]), Verdict::Fits);
        assert_eq!(check(&[9, 1, 3, 0, 0, 0]), Verdict::Malformed);
        assert_eq!(check(&[9, 2, 0, 1, 4, 0]), Verdict::Cut(3));
        assert_eq!(check(&[9, 4, 3, 1, 1, 7]), Verdict::Malformed);
        assert_eq!(check(&[9, 4, 4, 1, 2, 0, 7]), Verdict::Fits);
    }

    #[test]
    fn spaces_that_encapsulate_each_other_are_followed_only_so_far() {
        let shapes = with(|shapes| {
            let space = shapes.space().expect("room");
            let carrier = shapes.record(Record { fields: [].into(), tail: Tail::SubOptions(space) });
            shapes.define_within(space, 1, carrier);
            shapes.define_within(space, 2, Shape::Scalar(1));
            carrier
        });
        let nested = |depth: usize| {
            let mut data = vec![2, 0];
            for _ in 0..depth {
                data = [&[1, u8::try_from(data.len()).expect("short")], &data[..]].concat();
            }
            data
        };
        assert_eq!(shapes.check(200, &nested(7), false), Verdict::Malformed);
        assert_eq!(shapes.check(200, &nested(100), false), Verdict::Fits);
    }
}
