//! Room `cli`.

pub mod ctl;
