//! Captures of what each link carried, for tcpdump and Wireshark (`PCAP=dir`): the classic file format, raw IP.

use std::io::Write as _;
use std::path::Path;

use relevo::engine::Micros;

/// Magic number of microsecond files, version 2.4, no zone, no accuracy, whole packets, LINKTYPE_RAW; all in this machine's order.
const HEADER: [u32; 6] = [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 262_144, 101];

/// One link's packets, both directions, as they pass the engine's side of it.
#[derive(Debug, Default)]
pub struct Capture(Vec<u8>);

impl Capture {
    pub fn packet(&mut self, now: Micros, bytes: &[u8]) {
        let len = bytes.len() as u32;
        let (seconds, micros) = ((now / 1_000_000) as u32, (now % 1_000_000) as u32);
        for word in [seconds, micros, len, len] {
            self.0.extend_from_slice(&word.to_le_bytes());
        }
        self.0.extend_from_slice(bytes);
    }

    /// Writes the file; the directory is made if it is not there.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut file = std::fs::File::create(path)?;
        for word in HEADER {
            file.write_all(&word.to_le_bytes())?;
        }
        file.write_all(&self.0)
    }
}
