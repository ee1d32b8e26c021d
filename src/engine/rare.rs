//! State that only a busy flow needs, kept out of an idle one (R18: what an idle flow costs is bounded).
//!
//! Reading it never allocates: at rest it reads as its resting value. The first change allocates once; it is put to rest again when the
//! flow's unused memory is given back, so a flow that goes on working allocates no more.

use std::ops::Deref;

/// A value that has a state of rest, in which nothing needs to be remembered.
pub trait Resting: Clone + 'static {
    /// What it reads as at rest.
    const RESTING: &'static Self;
}

/// A value that takes a pointer's room while it is at rest.
#[derive(Debug)]
pub struct Rare<T>(Option<Box<T>>);

impl<T: Resting> Rare<T> {
    /// At rest.
    #[must_use]
    pub fn new() -> Self {
        Self(None)
    }
    /// To be changed; allocates if it was at rest.
    pub fn wake(&mut self) -> &mut T {
        self.0.get_or_insert_with(|| Box::new(T::RESTING.clone()))
    }
    /// To be changed unless it is at rest.
    pub fn awake(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }
    /// Whether memory is held for it.
    #[must_use]
    pub fn is_awake(&self) -> bool {
        self.0.is_some()
    }
    /// Gives the memory back if it says nothing else than at rest.
    pub fn settle(&mut self)
    where
        T: PartialEq,
    {
        if self.0.as_deref() == Some(T::RESTING) {
            self.0 = None;
        }
    }
    /// Gives the memory back; what it said is forgotten.
    pub fn rest(&mut self) {
        self.0 = None;
    }
}

impl<T: Resting> Default for Rare<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Resting> Deref for Rare<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::RESTING)
    }
}
