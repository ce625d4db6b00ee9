//! Room `allocate`.
