//! All flows of a shard: the busy ones as they are, those at rest parked.
//!
//! Whoever means a flow gets it awake. What only looks, looks at parked flows as they lie.

use super::context::Context;
use super::fall::{Effect, Fall, Roles};
use super::flow::Flow;
use super::pack::Writer;
use super::park::Parked;
use super::spec::{Micros, ServiceId};
use slab::Slab;

/// A flow's place: `parked` is empty, and `roles` are of old, while `flow` is there.
#[derive(Debug)]
struct Place {
    flow: Option<Box<Flow>>,
    parked: Parked,
    roles: Roles,
}

impl Place {
    fn wake(&mut self) -> &mut Flow {
        let parked = &mut self.parked;
        self.flow.get_or_insert_with(|| Box::new(std::mem::take(parked).flow()))
    }
    /// The flow, to be looked at: one that is parked is made in `made`.
    fn look<'a>(&'a self, made: &'a mut Flow) -> &'a Flow {
        self.flow.as_deref().unwrap_or_else(|| {
            self.parked.read_into(made);
            made
        })
    }
}

/// The flows, by number.
#[derive(Debug, Default)]
pub struct Flows {
    places: Slab<Place>,
    writer: Writer,
    /// What those at rest have yet to be told.
    fall: Option<Fall>,
}

impl Flows {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
    /// For how many there is room.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.places.capacity()
    }
    /// Gives back the room for flows that have gone.
    pub fn shrink_to_fit(&mut self) {
        self.places.shrink_to_fit();
        self.writer = Writer::default();
    }
    /// Takes a flow in; returns its number.
    pub fn insert(&mut self, flow: Flow) -> usize {
        self.places.insert(Place {
            roles: Roles::of(&flow),
            flow: Some(Box::new(flow)),
            parked: Parked::default(),
        })
    }
    /// Takes a flow out.
    pub fn remove(&mut self, key: usize) -> Option<Box<Flow>> {
        let mut place = self.places.try_remove(key)?;
        place.wake();
        place.flow
    }
    /// The flow, awake, and told what it has missed.
    pub fn get_mut(&mut self, cx: &mut Context, key: usize) -> Option<&mut Flow> {
        let place = self.places.get_mut(key)?;
        let (slept, roles) = (place.flow.is_none(), place.roles);
        let flow = place.wake();
        if slept && let Some(fall) = &self.fall {
            fall.tell(cx, &roles, flow);
        }
        Some(flow)
    }
    /// The flow, unless it is parked.
    #[must_use]
    pub fn awake(&self, key: usize) -> Option<&Flow> {
        self.places.get(key)?.flow.as_deref()
    }
    /// Whether this is the deadline that a flow of this generation has armed.
    #[must_use]
    pub fn has_armed(&self, key: usize, generation: u32, at: Micros) -> bool {
        let Some(place) = self.places.get(key) else {
            return false;
        };
        let armed = match &place.flow {
            Some(flow) => (flow.generation, flow.armed),
            None => {
                let label = place.parked.label();
                (label.generation, label.armed)
            }
        };
        armed == (generation, Some(at))
    }
    /// Parks a flow. Call it only if [`Flow::can_park`].
    pub fn park(&mut self, key: usize) {
        if let Some(place) = self.places.get_mut(key)
            && let Some(mut flow) = place.flow.take()
        {
            place.roles = Roles::of(&flow);
            place.parked = Parked::new(&mut flow, &mut self.writer);
        }
    }
    /// Looks at each.
    pub fn look(&self, mut at: impl FnMut(&Flow)) {
        let mut made = Parked::default().flow();
        for (_, place) in &self.places {
            at(place.look(&mut made));
        }
    }
    /// Looks at each of a service that is at rest.
    pub fn look_at_rest(&self, service: ServiceId, mut at: impl FnMut(&Flow)) {
        let mut made = Parked::default().flow();
        let is_meant = |place: &Place| place.flow.is_none() && place.roles.service == service;
        for (_, place) in self.places.iter().filter(|(_, place)| is_meant(place)) {
            at(place.look(&mut made));
        }
    }
    /// Each flow of a service that is awake, and of those at rest each that `wakes`.
    pub fn each(
        &mut self,
        service: ServiceId,
        mut wakes: impl FnMut(&Roles) -> bool,
        mut f: impl FnMut(usize, &mut Flow),
    ) {
        for (key, place) in &mut self.places {
            let is_meant = match &place.flow {
                Some(flow) => flow.service == service,
                None => place.roles.service == service && wakes(&place.roles),
            };
            if is_meant {
                f(key, place.wake());
            }
        }
    }
    /// From now on flows at rest are told of this when they are woken, or by [`Flows::next_to_tell`].
    pub fn set_fall(&mut self, fall: Fall) {
        self.fall = Some(fall);
    }
    /// Whether flows at rest have yet to be told of a fall.
    #[must_use]
    pub fn is_falling(&self) -> bool {
        self.fall.is_some()
    }
    /// The next flow at rest that has yet to be told of a fall. Without one, the fall is over.
    pub fn next_to_tell(&mut self) -> Option<usize> {
        let fall = self.fall.as_mut()?;
        for key in fall.next..self.places.capacity() {
            let told = |p: &Place| p.flow.is_some() || fall.effect(&p.roles) == Effect::None;
            if self.places.get(key).is_some_and(|place| !told(place)) {
                fall.next = key + 1;
                return Some(key);
            }
        }
        self.fall = None;
        None
    }
}
