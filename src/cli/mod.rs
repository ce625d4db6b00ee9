//! Room `cli`.

pub mod leases;
