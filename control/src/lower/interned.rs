//! Values that several share, each under one number as long as anybody uses it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Counted values under numbers. A value that nobody uses any more keeps its number until the next
/// [`Interned::sweep`], so that what is let go and taken up again within one change stays the same.
#[derive(Clone, Debug)]
pub struct Interned<V> {
    numbers: HashMap<Arc<V>, u32>,
    places: Vec<Option<Place<V>>>,
    free: Vec<u32>,
    /// Perhaps nobody's.
    idle: Vec<u32>,
    /// Forgotten, but not to be given out yet.
    swept: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Place<V> {
    value: Arc<V>,
    uses: u32,
}

impl<V> Default for Interned<V> {
    fn default() -> Interned<V> {
        Interned {
            numbers: HashMap::new(),
            places: Vec::new(),
            free: Vec::new(),
            idle: Vec::new(),
            swept: Vec::new(),
        }
    }
}

impl<V: Eq + Hash> Interned<V> {
    /// The value's number, with one use more; and whether the value is new.
    pub fn acquire(&mut self, value: V) -> (u32, bool) {
        if let Some(&number) = self.numbers.get(&value) {
            if let Some(place) = &mut self.places[number as usize] {
                place.uses += 1;
            }
            return (number, false);
        }
        let value = Arc::new(value);
        let place = Some(Place {
            value: value.clone(),
            uses: 1,
        });
        let number = match self.free.pop() {
            Some(number) => {
                self.places[number as usize] = place;
                number
            }
            None => {
                self.places.push(place);
                (self.places.len() - 1) as u32
            }
        };
        self.numbers.insert(value, number);
        (number, true)
    }

    /// One use less.
    pub fn release(&mut self, number: u32) {
        if let Some(place) = &mut self.places[number as usize] {
            place.uses -= 1;
            if place.uses == 0 {
                self.idle.push(number);
            }
        }
    }

    /// The value behind a number; none after it has been swept.
    pub fn get(&self, number: u32) -> Option<&Arc<V>> {
        let place = self.places.get(number as usize)?.as_ref();
        place.map(|place| &place.value)
    }

    /// The value's number, if it has one.
    pub fn number(&self, value: &V) -> Option<u32> {
        self.numbers.get(value).copied()
    }

    /// Forgets what nobody uses, and says what that was. Its numbers are given out again only after
    /// [`Interned::recycle`], when nobody has them in mind any more.
    pub fn sweep(&mut self) -> Vec<(u32, Arc<V>)> {
        let mut swept = Vec::new();
        for number in std::mem::take(&mut self.idle) {
            let place = &mut self.places[number as usize];
            // It may have been taken up again, or be on the list twice.
            if let Some(gone) = place.take_if(|place| place.uses == 0) {
                self.numbers.remove(&*gone.value);
                self.swept.push(number);
                swept.push((number, gone.value));
            }
        }
        swept
    }

    /// Lets the numbers of what has been forgotten be given out again.
    pub fn recycle(&mut self) {
        self.free.append(&mut self.swept);
    }
}
