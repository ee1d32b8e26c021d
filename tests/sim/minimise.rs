//! Takes away from a failing scenario what it does not need to fail.

use crate::Failure;
use crate::app::Pace;
use crate::net::LinkSpec;
use crate::scenario::{Cuts, Fault, Scenario, Sums};
use crate::world::Summary;

fn machine_of(fault: &mut Fault) -> Option<&mut usize> {
    match fault {
        Fault::Freeze { machine, .. }
        | Fault::Thaw { machine }
        | Fault::Down { machine }
        | Fault::Up { machine }
        | Fault::Serve { machine }
        | Fault::Crash { machine, .. }
        | Fault::Die { machine, .. }
        | Fault::Hang { machine }
        | Fault::Wake { machine }
        | Fault::Restart { machine } => Some(machine),
        Fault::Failover { to } | Fault::HandOver { to } | Fault::EndHandOver { to } => Some(to),
        Fault::Stall { .. } => None,
    }
}

/// Every way in which a scenario could be a little simpler.
fn simpler(s: &Scenario) -> Vec<Scenario> {
    let mut all = Vec::new();
    let mut add = |change: &dyn Fn(&mut Scenario)| {
        let mut other = s.clone();
        change(&mut other);
        if format!("{other:?}") != format!("{s:?}") {
            all.push(other);
        }
    };
    for i in 0..s.flows.len() {
        if s.flows.len() > 1 {
            add(&|o| {
                let _ = o.flows.remove(i);
            });
        }
    }
    for i in 0..s.faults.len() {
        add(&|o| {
            let _ = o.faults.remove(i);
        });
    }
    for m in (0..s.machines.len()).rev() {
        let used = s
            .faults
            .iter()
            .any(|(_, f)| machine_of(&mut f.clone()) == Some(&mut { m }));
        if s.machines.len() > 1 && !used {
            add(&|o| {
                o.machines.remove(m);
                for (_, f) in &mut o.faults {
                    if let Some(of) = machine_of(f) {
                        *of -= usize::from(*of > m);
                    }
                }
            });
        }
    }
    let last_client = s.clients.len() - 1;
    if last_client > 0 && s.flows.iter().all(|f| f.client != last_client) {
        add(&|o| {
            let _ = o.clients.pop();
        });
    }
    for i in 0..s.flows.len() {
        for r in 0..s.flows[i].dialogue.records.len() {
            if s.flows[i].dialogue.records.len() > 1 {
                add(&|o| {
                    let _ = o.flows[i].dialogue.records.remove(r);
                });
            }
            add(&|o| o.flows[i].dialogue.records[r].upload /= 2);
            add(&|o| o.flows[i].dialogue.records[r].reply /= 2);
            add(&|o| o.flows[i].dialogue.records[r].think = 0);
            add(&|o| (o.flows[i].dialogue.records[r].echo, o.flows[i].dialogue.records[r].wait) = (false, false));
        }
        add(&|o| o.flows[i].dialogue.trailer /= 2);
    }
    add(&|o| o.greeting = 0);
    add(&|o| o.v6 = false);
    add(&|o| o.sums = Sums::Complete);
    add(&|o| o.cuts = Cuts::Never);
    add(&|o| o.part = usize::MAX);
    add(&|o| o.service.detect.hang = None);
    add(&|o| o.service.detect.crash_ends = 16);
    add(&|o| o.limits = Scenario::plain(0).limits);
    for h in 0..s.clients.len() + s.machines.len() {
        let n = s.clients.len();
        let mut on = |change: &dyn Fn(&mut crate::host::HostSpec)| {
            add(&|o: &mut Scenario| {
                change(if h < n {
                    &mut o.clients[h]
                } else {
                    &mut o.machines[h - n]
                })
            });
        };
        on(&|h| (h.up.loss, h.down.loss) = (0, 0));
        on(&|h| (h.up.dup, h.down.dup) = (0, 0));
        on(&|h| (h.up.reorder, h.down.reorder) = (0, 0));
        on(&|h| (h.up.jitter, h.down.jitter) = (0, 0));
        on(&|h| (h.up.ns_per_byte, h.down.ns_per_byte) = (0, 0));
        on(&|h| h.up = LinkSpec::clean(h.up.delay));
        on(&|h| h.down = LinkSpec::clean(h.down.delay));
        on(&|h| h.pace = Pace::FAST);
        on(&|h| (h.rx, h.tx) = (65_535, 65_535));
        on(&|h| (h.mtu, h.ack_delay) = (1500, 10));
        on(&|h| (h.first_isn, h.ts_base) = (1_000, 1_000));
        on(&|h| h.timestamps = false);
        on(&|h| (h.sack, h.scaling) = (true, true));
        on(&|h| (h.nagle, h.reno, h.keep_alive) = (true, false, 0));
    }
    all
}

/// The simplest scenario found that still breaks the same rule.
pub fn minimise(from: &Scenario, rule: &str, run: fn(&Scenario, bool) -> Result<Summary, Failure>) -> Scenario {
    let mut best = from.clone();
    loop {
        let fails = |s: &Scenario| run(s, false).is_err_and(|f| f.violation.rule == rule);
        match simpler(&best).into_iter().find(fails) {
            Some(simpler) => best = simpler,
            None => return best,
        }
    }
}
