//! All flows of a shard: the busy ones as they are, those at rest parked.
//!
//! Whoever means a flow gets it awake. What only looks, looks at parked flows as they lie.

use super::flow::Flow;
use super::pack::Writer;
use super::park::Parked;
use super::spec::{Micros, ServiceId};
use slab::Slab;

/// A flow's place: `parked` is empty while `flow` is there.
#[derive(Debug, Default)]
struct Place {
    flow: Option<Box<Flow>>,
    parked: Parked,
}

impl Place {
    fn wake(&mut self) -> &mut Flow {
        let parked = &mut self.parked;
        self.flow.get_or_insert_with(|| Box::new(std::mem::take(parked).flow()))
    }
}

/// The flows, by number.
#[derive(Debug, Default)]
pub struct Flows {
    places: Slab<Place>,
    writer: Writer,
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
    /// The flow, awake.
    pub fn get_mut(&mut self, key: usize) -> Option<&mut Flow> {
        Some(self.places.get_mut(key)?.wake())
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
            place.parked = Parked::new(&mut flow, &mut self.writer);
        }
    }
    /// Looks at each.
    pub fn look(&self, mut at: impl FnMut(&Flow)) {
        for (_, place) in &self.places {
            match &place.flow {
                Some(flow) => at(flow),
                None => at(&place.parked.flow()),
            }
        }
    }
    /// Each flow of a service, awake. With it comes whether it was parked until now.
    pub fn each(&mut self, service: ServiceId, mut f: impl FnMut(usize, &mut Flow, bool)) {
        for (key, place) in &mut self.places {
            let was_parked = place.flow.is_none();
            let whose = match &place.flow {
                Some(flow) => flow.service,
                None => place.parked.label().service,
            };
            if whose == service {
                f(key, place.wake(), was_parked);
            }
        }
    }
}
