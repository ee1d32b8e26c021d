//! Any text as a ruleset: an error with its line, or rules that can be listed.

use relevo::host::rules::{bytecode, text};

/// Compiles `data`.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text::compile(text) {
        Ok(_) => assert_loadable(text),
        Err(error) => {
            assert!(error.line <= text.lines().count(), "{error}");
            assert!(bytecode(text).is_err());
        }
    }
}

/// Asserts what the loader counts on.
pub fn assert_loadable(text: &str) {
    let ruleset = text::compile(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    for set in &ruleset.sets {
        let len = set.key_len() as usize;
        assert!(set.elements.iter().all(|element| element.len() == len), "{}", set.name);
        assert!(set.key.is_empty() || set.type_number() > 0);
    }
    let listing = bytecode(text).expect("what compiles can be listed");
    assert_eq!(listing.matches("\n\n").count(), ruleset.rules.len(), "{listing}");
}
