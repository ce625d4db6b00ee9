//! Room `classify`.

pub mod steer;
