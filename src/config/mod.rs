//! The configuration: Kea's JSON read into values that know their places, checked against tables of keys, and
//! turned into one typed tree with every default and every inheritance resolved.
//!
//! The way of a configuration: [`load`] takes texts (or a value of the control API) through [`json`], which reads
//! them into values with places, `check`, which compares these with the tables of `schema`, and `build`, which makes
//! the [`tree`]. [`option`] turns option data into octets, [`plan`] turns the tree into what shards use, and
//! [`render`] shows it as `config-get` does. All report what they find into one [`finding::Report`].
//!
//! Promises: no panic on any input; no file, clock or socket is touched (whoever loads a configuration hands over
//! the texts and a loader for included ones); any thread may call. Everything that is wrong is reported, not only
//! the first thing. Bounds: nesting and includes are limited by constants in [`json`],
//! findings by [`finding::FINDINGS_MAX`].
//!
//! Follows the configuration chapters of Kea's reference manual, releases 1.4 to 3.x together.

mod build;
mod check;
pub mod finding;
pub mod hex;
pub mod json;
pub mod load;
pub mod option;
pub mod plan;
pub mod render;
mod schema;
pub mod tree;
