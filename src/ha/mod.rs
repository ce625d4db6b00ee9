//! Room `ha`.
