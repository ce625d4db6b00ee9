//! The fuzzer of one target: `APLOMADO_TARGET=wire aplomado-fuzz CORPUS [libFuzzer options]`; `scripts/fuzz` builds
//! it with coverage. A package of its own, outside the workspace, because libFuzzer wants coverage compiled in and a C++ compiler.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

#[path = "../targets.rs"]
mod targets;

fn target() -> targets::Target {
    static TARGET: OnceLock<targets::Target> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let name = std::env::var("APLOMADO_TARGET").unwrap_or_default();
        let found = targets::TARGETS.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("APLOMADO_TARGET names none of the targets: {name:?}")).1
    })
}

fuzz_target!(|octets: &[u8]| target()(octets));
