//! The classes of a packet: an ordered list without duplicates, because the first class that has an option gives it.

use crate::ids::ClassId;

/// Class identifiers are below this.
pub const CLASS_IDS_MAX: usize = 1024;
/// Most classes of one packet.
pub const CLASSES_MAX: usize = 256;

/// The class is not in the set and cannot be: the packet has [`CLASSES_MAX`] classes, or its number is too high.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The classes of a packet, in the order in which they were assigned. Plain data, reused from packet to packet.
#[derive(Clone, Debug)]
pub struct ClassSet {
    member: [u64; CLASS_IDS_MAX / 64],
    order: [ClassId; CLASSES_MAX],
    len: u16,
}

impl Default for ClassSet {
    fn default() -> Self {
        Self::new()
    }
}

impl ClassSet {
    /// No class.
    #[must_use]
    pub const fn new() -> Self {
        Self { member: [0; CLASS_IDS_MAX / 64], order: [ClassId(0); CLASSES_MAX], len: 0 }
    }

    /// Forgets all classes.
    pub const fn clear(&mut self) {
        self.member = [0; CLASS_IDS_MAX / 64];
        self.len = 0;
    }

    /// Appends `class`; false when it is in already, in its old place.
    ///
    /// # Errors
    /// [`Full`] when there is no room for it.
    pub fn insert(&mut self, class: ClassId) -> Result<bool, Full> {
        let (word, bit) = position(class);
        let member = self.member.get_mut(word).ok_or(Full)?;
        if *member & bit != 0 {
            return Ok(false);
        }
        *self.order.get_mut(usize::from(self.len)).ok_or(Full)? = class;
        *member |= bit;
        self.len += 1;
        Ok(true)
    }

    /// Whether `class` is in.
    #[must_use]
    pub fn contains(&self, class: ClassId) -> bool {
        let (word, bit) = position(class);
        self.member.get(word).is_some_and(|member| member & bit != 0)
    }

    /// Keeps only the classes for which `keep` is true, in their order.
    pub fn retain(&mut self, mut keep: impl FnMut(ClassId) -> bool) {
        let mut kept = 0_u16;
        for index in 0..usize::from(self.len) {
            let class = self.order[index];
            if keep(class) {
                self.order[usize::from(kept)] = class;
                kept += 1;
            } else {
                let (word, bit) = position(class);
                self.member[word] &= !bit;
            }
        }
        self.len = kept;
    }

    /// The classes, first assigned first.
    #[must_use]
    pub fn as_slice(&self) -> &[ClassId] {
        self.order.get(..usize::from(self.len)).unwrap_or(&self.order)
    }

    /// The classes, first assigned first.
    pub fn iter(&self) -> impl Iterator<Item = ClassId> + '_ {
        self.as_slice().iter().copied()
    }

    /// How many classes there are.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether one of `classes` is in. An empty guard lets everything through, but that is for its owner to say.
    #[must_use]
    pub fn contains_any(&self, classes: &[ClassId]) -> bool {
        classes.iter().any(|class| self.contains(*class))
    }
}

const fn position(class: ClassId) -> (usize, u64) {
    (class.0 as usize / 64, 1 << (class.0 % 64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn order_is_that_of_assignment_without_duplicates() {
        let mut set = ClassSet::new();
        for class in [7, 3, 7, 1000, 3] {
            set.insert(ClassId(class)).expect("room");
        }
        assert_eq!(set.as_slice(), [ClassId(7), ClassId(3), ClassId(1000)]);
        assert!(set.contains_any(&[ClassId(5), ClassId(3)]) && !set.contains_any(&[]));
        set.retain(|class| class != ClassId(3));
        assert_eq!((set.as_slice(), set.count()), (&[ClassId(7), ClassId(1000)][..], 2));
        assert_eq!(set.insert(ClassId(3)), Ok(true));
        set.clear();
        assert!(!set.contains(ClassId(7)) && set.count() == 0);
    }

    #[test]
    fn the_set_is_bounded() {
        let mut set = ClassSet::new();
        assert_eq!(set.insert(ClassId(1024)), Err(Full));
        for class in 0..256 {
            assert_eq!(set.insert(ClassId(class)), Ok(true));
        }
        assert_eq!(set.insert(ClassId(256)), Err(Full));
        assert_eq!(set.insert(ClassId(255)), Ok(false));
        assert!(!set.contains(ClassId(u16::MAX)));
    }

    proptest! {
        #[test]
        fn behaves_like_a_list(steps in proptest::collection::vec((any::<bool>(), 0_u16..40), 0..60)) {
            let (mut set, mut list) = (ClassSet::new(), Vec::new());
            for (insert, number) in steps {
                let class = ClassId(number);
                if insert {
                    prop_assert_eq!(set.insert(class), Ok(!list.contains(&class)));
                    if !list.contains(&class) {
                        list.push(class);
                    }
                } else {
                    set.retain(|other| other != class);
                    list.retain(|other| *other != class);
                }
                prop_assert_eq!(set.as_slice(), &list[..]);
            }
        }
    }
}
