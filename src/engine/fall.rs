//! A machine's fall among connections at rest (R12): thousands of them need not be made anew before those that are in use go on.
//!
//! What becomes of a parked flow can be told from its [`Roles`]: whether another original takes over, or a leg is freed. The flow itself is told when
//! somebody means it, or else bit by bit, in the polls that follow. Until then nothing that concerns it has happened, so that nobody can
//! tell the difference. Where it can't be told, the flow is woken at once: its client may be owed a reset.

use super::context::Context;
use super::flow::Flow;
use super::leg::LegState;
use super::spec::{MachineId, MachineRef, Micros, ServiceId};
use super::{Engine, Outcome};
use crate::mutant::{self, Mutation};

/// Who is what in a parked flow: kept beside it, since what is asked of thousands at a time should not have to be read from all over the memory.
#[derive(Clone, Copy, Debug)]
pub struct Roles {
    /// Whose flow it is.
    pub service: ServiceId,
    original: MachineId,
    /// Machines whose leg is not gone, a bit each by [`MachineId`].
    there: u16,
    /// Of those, the ones that could take over, and the original, if its leg is open.
    fit: u16,
}

/// What a fall does to a parked flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It has nothing to do with that machine.
    None,
    /// A replica's leg is freed.
    Freed,
    /// The original's leg is freed, and another one takes over.
    Switched,
    /// That takes the flow itself to tell.
    Unclear,
}

/// A machine's bit; none for one beyond those that a configuration may have.
fn bit(machine: MachineId) -> u16 {
    1_u16.checked_shl(u32::from(machine.0)).unwrap_or(0)
}

impl Roles {
    /// Those of a flow that can be parked.
    #[must_use]
    pub fn of(flow: &Flow) -> Self {
        let mut roles = Self {
            service: flow.service,
            original: flow.original().machine,
            there: 0,
            fit: 0,
        };
        for (index, leg) in flow.legs.iter().enumerate() {
            if leg.state != LegState::Gone {
                roles.there |= bit(leg.machine);
            }
            let is_original = index == flow.original;
            if flow.is_fit(leg) || (is_original && leg.is_open()) {
                roles.fit |= bit(leg.machine);
            }
        }
        roles
    }

    /// What becomes of the flow when `machine` falls, while those of `up` remain (bits as here).
    #[must_use]
    pub fn effect(&self, machine: MachineId, up: u16) -> Effect {
        let fallen = bit(machine);
        let heirs = self.fit & up & !fallen;
        if fallen == 0 {
            Effect::Unclear
        } else if self.original == machine {
            // An original that has finished, or is gone already, is a case of its own.
            if self.fit & fallen != 0 && heirs != 0 {
                Effect::Switched
            } else {
                Effect::Unclear
            }
        } else if self.there & fallen != 0 {
            Effect::Freed
        } else {
            Effect::None
        }
    }
}

impl Effect {
    /// Counts it; returns whether that was possible.
    pub fn count(self, outcome: &mut Outcome) -> bool {
        outcome.switched += usize::from(self == Self::Switched);
        outcome.legs_freed += usize::from(matches!(self, Self::Freed | Self::Switched));
        self != Self::Unclear
    }
}

/// The fall that flows at rest have yet to be told of.
#[derive(Debug)]
pub struct Fall {
    /// Who has fallen.
    pub machine: MachineRef,
    /// When.
    pub at: Micros,
    /// The machines of the service that remain, a bit each.
    pub up: u16,
    /// Flows before this number have been told.
    pub next: usize,
}

impl Fall {
    pub fn new(cx: &Context, machine: MachineRef, at: Micros) -> Self {
        Self {
            machine,
            at,
            up: cx.up(machine.service).fold(0, |bits, m| bits | bit(m)),
            next: 0,
        }
    }
    /// What it does to a parked flow.
    #[must_use]
    pub fn effect(&self, roles: &Roles) -> Effect {
        if roles.service == self.machine.service {
            roles.effect(self.machine.machine, self.up)
        } else {
            Effect::None
        }
    }
    /// Tells a flow that has just been woken.
    pub fn tell(&self, cx: &mut Context, roles: &Roles, flow: &mut Flow) {
        let effect = self.effect(roles);
        if effect != Effect::None && !mutant::is(Mutation::SleepersUntold) {
            let (mut outcome, mut foretold) = (Outcome::default(), Outcome::default());
            effect.count(&mut foretold);
            flow.machine_down(cx, self.at, self.machine.machine, &mut outcome);
            debug_assert!(
                outcome == foretold || effect == Effect::Unclear,
                "{foretold:?} was {outcome:?}"
            );
        }
    }
}

impl Engine {
    /// Tells up to `most` flows at rest of a fall, so that they have work in the next poll.
    pub(super) fn tell_sleepers(&mut self, most: usize) {
        for _ in 0..most {
            let Some(key) = self.flows.next_to_tell() else { break };
            self.touch(key);
        }
    }
}
