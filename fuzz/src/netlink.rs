//! Any bytes as the kernel's answer on a netlink socket: read to its end, never beyond it.

use relevo::host::netlink::{attributes, messages, request, u16_at, u32_at};

/// Takes `data` apart, and puts pieces of it together again.
pub fn run(data: &[u8]) {
    let (mut total, mut values) = (0, Vec::new());
    for message in messages(data) {
        let _ = message.status();
        total += message.payload.len();
        for (kind, value) in attributes(message.payload) {
            let _ = (u16_at(value, 0), u32_at(value, 1));
            values.push((kind, value));
        }
    }
    assert!(total <= data.len());
    values.truncate(16);
    values.retain(|(_, value)| value.len() < 1_000);
    let built = request(26, 1, &[1, 0, 0, 0], &values);
    let read: Vec<_> = messages(&built).collect();
    assert_eq!(read.len(), 1);
    let again: Vec<_> = attributes(&read[0].payload[4..]).collect();
    assert_eq!(again, values);
}
