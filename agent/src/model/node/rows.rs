//! Tables that keep their memory.

use std::ops::{Deref, DerefMut};

/// Numbers by name at most: no file of procfs has a quarter of it.
const MOST_NAMES: usize = 1024;

/// A row that can be used again.
pub trait Recycled: Default {
    /// Makes it as good as new, but for the memory that it holds.
    fn recycle(&mut self);
}

/// Rows in order.
#[derive(Clone, Debug, Default)]
pub struct Rows<T> {
    rows: Vec<T>,
    used: usize,
}

impl<T: Recycled> Rows<T> {
    /// Takes all rows out.
    pub const fn clear(&mut self) {
        self.used = 0;
    }

    /// Appends an empty row.
    pub fn push(&mut self) -> &mut T {
        let index = self.used;
        self.used += 1;
        if index == self.rows.len() {
            self.rows.push(T::default());
        } else {
            self.rows[index].recycle();
        }
        &mut self.rows[index]
    }

    /// Takes the last row out again.
    pub const fn pop(&mut self) {
        self.used = self.used.saturating_sub(1);
    }
}

impl<T> Deref for Rows<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.rows[..self.used]
    }
}

impl<T> DerefMut for Rows<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.rows[..self.used]
    }
}

/// Numbers by name, where the kernel says which names there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    text: String,
    /// End of each name in `text`, and its number.
    rows: Vec<(usize, u64)>,
}

impl Named {
    /// Takes all numbers out.
    pub fn clear(&mut self) {
        self.text.clear();
        self.rows.clear();
    }

    /// Appends a number under the name that `parts` make.
    ///
    /// The name becomes part of a metric's: anything that may not stand there is `_`. A name that was there before
    /// keeps its number, since a metric cannot have two; beyond 1,024 names nothing is taken.
    pub fn push(&mut self, parts: &[&str], value: u64) {
        let start = self.text.len();
        let legal = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        self.text.extend(parts.iter().flat_map(|part| part.chars()).map(legal));
        let (before, name) = self.text.split_at(start);
        let full = self.rows.len() == MOST_NAMES;
        if full || name.is_empty() || self.names(before).any(|other| other == name) {
            return self.text.truncate(start);
        }
        self.rows.push((self.text.len(), value));
    }

    /// Names and numbers in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.names(&self.text).zip(self.rows.iter().map(|(_, value)| *value))
    }

    fn names<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> {
        let mut start = 0;
        self.rows.iter().filter_map(move |(end, _)| text.get(std::mem::replace(&mut start, *end)..*end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Default, PartialEq)]
    struct Row(String);

    impl Recycled for Row {
        fn recycle(&mut self) {
            self.0.clear();
        }
    }

    #[test]
    fn a_recycled_row_is_empty_and_keeps_its_memory() {
        let mut rows = Rows::default();
        let row: &mut Row = rows.push();
        row.0.push_str("something long enough");
        let memory = row.0.as_ptr();
        rows.clear();
        assert!(rows.is_empty());
        assert_eq!((rows.push().0.as_ptr(), rows[0].0.as_str()), (memory, ""));
        rows.push();
        rows.pop();
        assert_eq!(rows.len(), 1);
    }

    #[test]
    fn names_are_fit_for_metrics_and_none_comes_twice() {
        let mut named = Named::default();
        named.push(&["Tcp", "_", "InErrs"], 1);
        named.push(&["a b{}\n"], 2);
        named.push(&["Tcp_InErrs"], 3);
        named.push(&[""], 4);
        assert_eq!(named.iter().collect::<Vec<_>>(), [("Tcp_InErrs", 1), ("a_b___", 2)]);
        named.clear();
        assert_eq!(named.iter().count(), 0);
    }

    proptest! {
        #[test]
        fn any_names_can_be_appended(names in prop::collection::vec("\\PC{0,8}", 0..8)) {
            let mut named = Named::default();
            for (value, name) in names.iter().enumerate() {
                named.push(&[name], value as u64);
            }
            let found: Vec<_> = named.iter().map(|(name, _)| name).collect();
            prop_assert!(found.iter().all(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')));
        }
    }
}
