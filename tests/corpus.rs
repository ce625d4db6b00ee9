//! The corpora of the fuzzer, replayed: every input that once reached something new, and every one that once broke something.

use std::fs;
use std::path::Path;

#[path = "fuzz/targets.rs"]
mod targets;

#[test]
fn no_input_of_the_corpora_breaks_its_target() {
    for (name, target) in targets::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
        let mut count = 0;
        for entry in fs::read_dir(&folder).expect("every target has a corpus") {
            let path = entry.expect("folder entry is readable").path();
            let octets = fs::read(&path).expect("corpus file is readable");
            let outcome = std::panic::catch_unwind(|| target(&octets));
            assert!(outcome.is_ok(), "{} breaks {name}", path.display());
            count += 1;
        }
        assert!(count > 0, "the corpus of {name} is empty");
    }
}
