//! Instruments that show how fast `aplomado` is.

fn main() {}
