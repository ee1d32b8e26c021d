//! The engine among clients and machines who may say anything: mostly what a TCP would say next, sometimes a little beside it,
//! sometimes nonsense.
//!
//! The input is a script: it chooses the service, then acts one after another. After each the cheap invariants are looked at;
//! at the end time runs until nothing is left, and nothing may be left.

mod cut;
mod ends;
mod table;

use arbitrary::{Result, Unstructured};
use relevo::engine::{Command, MachineId, MachineRef, ServiceId};
use table::{CLIENTS, Table};

/// The most acts of one script: longer ones find nothing that two shorter ones would not.
const MAX_ACTS: usize = 400;

/// Plays the script that `data` holds.
pub fn run(data: &[u8]) {
    let mut u = Unstructured::new(data);
    if let Ok(mut table) = Table::choose(&mut u) {
        for _ in 0..MAX_ACTS {
            if u.is_empty() || act(&mut table, &mut u).is_err() {
                break;
            }
        }
        table.finish();
    }
}

fn act(table: &mut Table, u: &mut Unstructured<'_>) -> Result<()> {
    match u.arbitrary::<u8>()? % 32 {
        0..8 => {
            let client = u.int_in_range(0..=CLIENTS - 1)?;
            table.client_speaks(u, client)?;
        }
        8..20 => table.machine_speaks(u)?,
        20 => {
            let client = u.int_in_range(0..=CLIENTS - 1)?;
            table.opens(u, client)?;
        }
        21 => table.damaged(u)?,
        22 => table.raw(u)?,
        23 => table.poll(),
        24..28 => {
            // Up to a second, mostly the milliseconds between packets.
            let time = u64::from(u.arbitrary::<u16>()?) * [1, 1, 4, 16][usize::from(u.arbitrary::<u8>()? % 4)];
            table.wait(time);
        }
        // Late: what was due in the meantime is found all at once.
        28 => table.sleep(u64::from(u.arbitrary::<u16>()?) * 1_000),
        29 => {
            let machine = machine(u)?;
            table.command(Command::Down { machine });
        }
        30 => {
            let machine = machine(u)?;
            table.command(Command::Up { machine });
        }
        _ => {
            let to = machine(u)?;
            match u.arbitrary::<u8>()? % 8 {
                0 | 4 => table.command(Command::HandOver { to }),
                2 => table.command(Command::Failover { to }),
                3 => table.command(Command::EndHandOver { to }),
                6 => table.command(Command::Serve { machine: to }),
                _ => table.probe(to),
            }
        }
    }
    table.look();
    Ok(())
}

/// A machine that there may be.
fn machine(u: &mut Unstructured<'_>) -> Result<MachineRef> {
    let byte: u8 = u.arbitrary()?;
    Ok(MachineRef {
        service: ServiceId(u16::from(byte >> 7)),
        machine: MachineId(u16::from(byte % 5)),
    })
}
