//! Room `classify`.

pub mod bucket;
