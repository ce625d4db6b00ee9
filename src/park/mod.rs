//! Room `park`.
