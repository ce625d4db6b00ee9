//! Room `classify`.

pub mod bucket;
pub mod classes;
pub mod subnet;
