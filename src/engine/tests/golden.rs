//! stub

use std::path::Path;

/// stub
pub fn run(config: crate::config::Config, config_path: &Path) -> anyhow::Result<()> {
    let _ = (config, config_path);
    anyhow::bail!("not there yet")
}

/// stub
pub mod client {
    use std::path::Path;

    /// stub
    pub fn status(socket: &Path, json: bool) -> anyhow::Result<()> {
        let _ = (socket, json);
        anyhow::bail!("not there yet")
    }
    /// stub
    pub fn failover(socket: &Path, service: &str, to: Option<&str>) -> anyhow::Result<()> {
        let _ = (socket, service, to);
        anyhow::bail!("not there yet")
    }
    /// stub
    pub fn machine(socket: &Path, enable: bool, service: &str, machine: &str) -> anyhow::Result<()> {
        let _ = (socket, enable, service, machine);
        anyhow::bail!("not there yet")
    }
}
