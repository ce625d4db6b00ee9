//! Room `config`.
pub mod option;
pub mod plan;
