//! Option definitions and values: from the text of a configuration to octets, and back.
