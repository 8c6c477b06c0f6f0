//! An array in pages that are shared until written: a copy costs its directory, a write one page.

use std::sync::Arc;

/// An array without end whose elements are `T::default()` until they are set.
///
/// A clone shares all pages; [`Paged::set`] copies the one page it writes, if that is shared.
/// So the control thread changes its own array while workers read the one they were given.
///
/// Memory: 8 bytes for each page up to the highest that was set, and the pages that were.
#[derive(Clone, Debug)]
pub(super) struct Paged<T, const PAGE: usize> {
    /// None is a page of defaults.
    pages: Vec<Option<Arc<[T; PAGE]>>>,
}

impl<T, const PAGE: usize> Default for Paged<T, PAGE> {
    fn default() -> Self {
        Paged { pages: Vec::new() }
    }
}

impl<T: Clone + Default, const PAGE: usize> Paged<T, PAGE> {
    /// The element; none where its page was never written.
    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let page = self.pages.get(index as usize / PAGE)?.as_ref()?;
        Some(&page[index as usize % PAGE])
    }

    /// The elements of all pages that were written.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flatten().flat_map(|page| page.iter())
    }

    /// Writes one element.
    pub(super) fn set(&mut self, index: u32, value: T) {
        let at = index as usize / PAGE;
        if self.pages.len() <= at {
            self.pages.resize(at + 1, None);
        }
        let fresh = || Arc::new(std::array::from_fn(|_| T::default()));
        let page = self.pages[at].get_or_insert_with(fresh);
        Arc::make_mut(page)[index as usize % PAGE] = value;
    }

    /// Bytes on the heap, shared ones too.
    pub(super) fn bytes(&self) -> usize {
        let written = self.pages.iter().flatten().count();
        size_of_val(&self.pages[..]) + written * size_of::<[T; PAGE]>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_does_not_see_later_writes_and_shares_the_other_pages() {
        let mut array: Paged<u32, 4> = Paged::default();
        assert_eq!(array.get(0), None);
        array.set(1, 11);
        array.set(9, 99);
        let copy = array.clone();
        array.set(9, 100);
        array.set(2, 22);
        let read = |of: &Paged<u32, 4>| [0, 1, 2, 4, 9, 10, 12].map(|at| of.get(at).copied());
        let zero = Some(0);
        assert_eq!(
            read(&copy),
            [zero, Some(11), zero, None, Some(99), zero, None]
        );
        assert_eq!(
            read(&array),
            [zero, Some(11), Some(22), None, Some(100), zero, None]
        );
        copy.clone().set(5, 5);
        let same = |page: usize| {
            let [a, b] = [&array, &copy].map(|of| of.pages[page].as_ref().map(Arc::as_ptr));
            a == b
        };
        assert!(!same(0) && same(1) && !same(2));
        assert_eq!(array.bytes(), 3 * 8 + 2 * 16);
    }
}
