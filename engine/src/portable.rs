//! Strategies that draw the same cases from the same seed on every platform.
//!
//! proptest draws a `usize` by the width of the platform's pointers, and with it the lengths of its collections and the
//! places of `prop::sample`. The engine runs where pointers have 32 bits, its tests also where they have 64, and both are
//! to see the same cases. So these draw a `u32`; nothing else in the engine's cases draws a `usize`.

use std::fmt::Debug;
use std::ops::RangeInclusive;

use proptest::prelude::*;
use proptest::strategy::{NewTree, ValueTree};
use proptest::test_runner::TestRunner;

/// One of some values. It shrinks towards the first.
pub(crate) fn pick<T: Clone + Debug + 'static>(values: &[T]) -> impl Strategy<Value = T> + use<T> {
    let values = values.to_vec();
    (0..values.len() as u32).prop_map(move |place| values[place as usize].clone())
}

/// As many elements as one of `lengths` says. It shrinks by leaving elements out, and then by shrinking those that are left.
pub(crate) fn list<S: Strategy>(element: S, lengths: RangeInclusive<u32>) -> List<S> {
    List { element, lengths }
}

/// See [`list`].
#[derive(Clone, Debug)]
pub(crate) struct List<S> {
    element: S,
    lengths: RangeInclusive<u32>,
}

impl<S: Strategy> Strategy for List<S> {
    type Tree = ListTree<S::Tree>;
    type Value = Vec<S::Value>;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let length = self.lengths.new_tree(runner)?.current();
        let mut elements = Vec::with_capacity(length as usize);
        for _ in 0..length {
            elements.push((self.element.new_tree(runner)?, true));
        }
        Ok(ListTree { elements, min: *self.lengths.start() as usize, next: Shrink::LeaveOut(0), last: None })
    }
}

/// A drawn list while it shrinks.
pub(crate) struct ListTree<T> {
    /// Each with whether it is still in the list.
    elements: Vec<(T, bool)>,
    min: usize,
    next: Shrink,
    last: Option<Shrink>,
}

#[derive(Clone, Copy)]
enum Shrink {
    LeaveOut(usize),
    Element(usize),
}

impl<T: ValueTree> ValueTree for ListTree<T> {
    type Value = Vec<T::Value>;

    fn current(&self) -> Self::Value {
        self.elements.iter().filter(|(_, is_in)| *is_in).map(|(element, _)| element.current()).collect()
    }

    fn simplify(&mut self) -> bool {
        loop {
            let step = self.next;
            match step {
                Shrink::LeaveOut(place) => {
                    let length = self.elements.iter().filter(|(_, is_in)| *is_in).count();
                    if place == self.elements.len() || length == self.min {
                        self.next = Shrink::Element(0);
                        continue;
                    }
                    self.next = Shrink::LeaveOut(place + 1);
                    self.elements[place].1 = false;
                    self.last = Some(step);
                    return true;
                }
                Shrink::Element(place) => {
                    let Some((element, is_in)) = self.elements.get_mut(place) else { return false };
                    if *is_in && element.simplify() {
                        self.last = Some(step);
                        return true;
                    }
                    self.next = Shrink::Element(place + 1);
                }
            }
        }
    }

    fn complicate(&mut self) -> bool {
        match self.last {
            Some(Shrink::LeaveOut(place)) => {
                self.elements[place].1 = true;
                self.last = None;
                true
            }
            Some(Shrink::Element(place)) => self.elements[place].0.complicate(),
            None => false,
        }
    }
}
