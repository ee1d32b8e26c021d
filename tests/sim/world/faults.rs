//! Faults and commands: what the scenario does to hosts and engine, and machines that are declared dead.

use relevo::engine::{Command, MachineId, MachineRef, Reason, ServiceId};

use super::World;
use super::queue::Happening;
use crate::books::{Violation, ensure};
use crate::gateway::Gateway;
use crate::scenario::Fault;

impl<G: Gateway> World<G> {
    pub(super) fn machine_ref(m: usize) -> MachineRef {
        MachineRef {
            service: ServiceId(0),
            machine: MachineId(m as u16),
        }
    }

    pub(super) fn declared_dead(&mut self, machine: MachineRef, reason: Reason) -> Result<(), Violation> {
        let m = usize::from(machine.machine.0);
        self.trace
            .note(self.now, || format!("machine {m} is declared dead: {reason:?}"));
        if let (Reason::Hang, Some(hang)) = (reason, self.scenario.service.detect.hang) {
            ensure!(
                self.observer.hangs(self.now, m, hang),
                "R14",
                "machine {m} is said to hang, but its service does what the others' do"
            );
            self.summary.hung += 1;
            // One that is slower than the others by so much may only seem to.
            self.summary.false_alarms += u64::from(!self.observer.state[m].hung);
        } else if !self.ever_frozen[m] {
            let spec = &self.scenario.machines[m];
            let clean = spec.up.is_clean() && spec.down.is_clean();
            ensure!(
                !clean || spec.refuses,
                "R14",
                "machine {m} is declared dead ({reason:?}), but it is well"
            );
            self.summary.false_alarms += u64::from(!spec.refuses);
        }
        self.down(machine)
    }

    pub(super) fn down(&mut self, machine: MachineRef) -> Result<(), Violation> {
        self.command(Command::Down { machine });
        let m = usize::from(machine.machine.0);
        let status = self.engine.status();
        if status.services.first().is_some_and(|s| s.machines[m].down) {
            if let Some(d) = &mut self.detector {
                d.handle_down(machine);
            }
            self.observer.machine_told(self.now, m, true);
        } else if let Some(d) = &mut self.detector {
            // The last machine stays: it is watched on.
            d.handle_up(self.now, machine);
        }
        Ok(())
    }

    fn command(&mut self, command: Command) {
        self.trace.note(self.now, || format!("{command:?}"));
        self.engine.command(self.now, command);
    }

    /// The kernel of a service that dies ends the next of its connections; when there are none left, the service is there again.
    pub(super) fn die_on(&mut self, fault: Fault) -> Result<(), Violation> {
        let Fault::Die { machine, fin, every } = fault else {
            return Ok(());
        };
        // Meanwhile the machine may have been started anew, or have woken up.
        if self.hosts[machine].hung {
            if self.hosts[machine].end_one(fin) {
                self.at(self.now + every, Happening::Ends(fault));
            } else {
                let state = &mut self.observer.state[machine];
                (state.died_at, state.hung) = (Some(self.now), false);
                self.hosts[machine].hung = false;
            }
            self.host_run(machine, None)?;
        }
        // The engine hears of it by packets alone; it may be asleep.
        Ok(())
    }

    pub(super) fn strike(&mut self, fault: Fault) -> Result<(), Violation> {
        self.trace.note(self.now, || format!("{fault:?}"));
        match fault {
            Fault::Freeze { machine, stop } => {
                self.frozen_at[machine] = Some(self.now);
                (self.ever_frozen[machine], self.stopped[machine]) = (true, stop);
                self.observer.state[machine].frozen = true;
            }
            Fault::Thaw { machine } => {
                self.frozen_at[machine] = None;
                self.stopped[machine] = false;
                self.observer.state[machine].frozen = false;
                self.host_run(machine, None)?;
            }
            Fault::Down { machine } => self.down(Self::machine_ref(machine))?,
            Fault::Up { machine } => {
                let machine = Self::machine_ref(machine);
                self.command(Command::Up { machine });
                if let Some(d) = &mut self.detector {
                    d.handle_up(self.now, machine);
                }
                self.observer
                    .machine_told(self.now, usize::from(machine.machine.0), false);
            }
            Fault::Crash { machine, fin } => {
                self.observer.state[machine].died_at = Some(self.now);
                self.hosts[machine].crash(fin);
                self.host_run(machine, None)?;
            }
            Fault::Die { machine, .. } => {
                let state = &mut self.observer.state[machine];
                (state.died_at, state.hung) = (Some(self.now), true);
                self.hosts[machine].hung = true;
                return self.die_on(fault);
            }
            Fault::Restart { machine } => {
                let state = &mut self.observer.state[machine];
                (state.died_at, state.hung) = (Some(self.now), false);
                self.hosts[machine].restart();
                self.set_host_timer(machine);
            }
            Fault::Hang { machine } => {
                self.observer.state[machine].hung = true;
                self.hosts[machine].hung = true;
            }
            Fault::Wake { machine } => {
                self.observer.state[machine].hung = false;
                self.hosts[machine].hung = false;
                self.host_run(machine, None)?;
            }
            Fault::Stall { micros } => {
                self.engine_rest()?;
                self.stalled_until = self.now + micros;
                self.at(self.stalled_until, Happening::Resume);
                return Ok(());
            }
            Fault::Failover { to } => {
                self.command(Command::Failover {
                    to: Self::machine_ref(to),
                });
                // One that is down is not even asked, and what was planned stays planned.
                if !self.observer.state[to].down {
                    self.observer.failover(to);
                }
            }
            Fault::Serve { machine } => self.command(Command::Serve {
                machine: Self::machine_ref(machine),
            }),
            Fault::EndHandOver { to } => {
                self.command(Command::EndHandOver {
                    to: Self::machine_ref(to),
                });
                self.observer.end_hand_over();
            }
            Fault::HandOver { to } => {
                if !self.observer.state[to].down {
                    self.observer.hand_over(to);
                }
                self.command(Command::HandOver {
                    to: Self::machine_ref(to),
                });
            }
        }
        self.engine_rest()
    }
}
