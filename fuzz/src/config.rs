//! Any text as a configuration: refused with a line, or accepted; and what is accepted can be written back and turned into rules.

use super::rules::assert_loadable;
use relevo::config::{Config, HostPath};

/// Reads `data`.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let config = match Config::parse("relevo.toml", text) {
        Ok(config) => config,
        Err(problems) => {
            let said = problems.to_string();
            assert!(said.starts_with("relevo.toml:"), "no file and line: {said}");
            return;
        }
    };
    let printed = config.to_string();
    let again = Config::parse("printed", &printed).unwrap_or_else(|problems| panic!("{problems}\n{printed}"));
    assert_eq!(config, again, "check --print loses something");
    for shard in 0..config.engine.workers {
        let spec = config.engine_spec(shard, [7; 16], &|_| HostPath {
            ifindex: None,
            mtu: 1500,
        });
        drop(relevo::engine::Engine::new(spec));
    }
    assert_loadable(&relevo::host::rules::render(&config));
}
