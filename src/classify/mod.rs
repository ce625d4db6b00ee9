//! Room `classify`.

pub mod bucket;
pub mod subnet;
