//! A table of the state: what is stored, by identifier, and the revision that wrote it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    sync::Arc,
};

/// A thing, and the store's revision that wrote it last.
#[derive(Debug)]
pub struct Row<T> {
    /// The thing.
    pub value: Arc<T>,
    /// For a compare: it is still the same.
    pub mod_revision: u64,
}

impl<T> Clone for Row<T> {
    fn clone(&self) -> Self {
        Row {
            value: Arc::clone(&self.value),
            mod_revision: self.mod_revision,
        }
    }
}

/// Rows in the order of their identifiers.
#[derive(Debug)]
pub struct Table<K, T>(BTreeMap<K, Row<T>>);

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Table(BTreeMap::new())
    }
}

impl<K: Ord, T> Table<K, T> {
    /// The row.
    pub fn row(&self, id: &K) -> Option<&Row<T>> {
        self.0.get(id)
    }

    /// The thing.
    pub fn get(&self, id: &K) -> Option<&Arc<T>> {
        self.0.get(id).map(|row| &row.value)
    }

    /// All identifiers.
    pub fn ids(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    /// Everything.
    pub fn values(&self) -> impl Iterator<Item = &Arc<T>> {
        self.0.values().map(|row| &row.value)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Puts a row or, with none, takes it away; answers what was there.
    pub fn set(&mut self, id: K, row: Option<Row<T>>) -> Option<Arc<T>> {
        let old = match row {
            Some(row) => self.0.insert(id, row),
            None => self.0.remove(&id),
        };
        old.map(|row| row.value)
    }
}

/// Which things have something in common: value → identifiers.
#[derive(Debug)]
pub struct Index<K, V>(HashMap<K, BTreeSet<V>>);

impl<K, V> Default for Index<K, V> {
    fn default() -> Self {
        Index(HashMap::new())
    }
}

impl<K: Hash + Eq, V: Ord> Index<K, V> {
    /// Adds one.
    pub fn insert(&mut self, key: K, value: V) {
        self.0.entry(key).or_default().insert(value);
    }

    /// Takes one away.
    pub fn remove(&mut self, key: &K, value: &V) {
        if let Some(set) = self.0.get_mut(key) {
            set.remove(value);
            if set.is_empty() {
                self.0.remove(key);
            }
        }
    }

    /// All with that value, in order.
    pub fn get<Q>(&self, key: &Q) -> impl Iterator<Item = &V> + use<'_, Q, K, V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.get(key).into_iter().flatten()
    }

    /// All of them, value by value.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.values().flatten()
    }

    /// How many have that value.
    pub fn count<Q>(&self, key: &Q) -> usize
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.get(key).map_or(0, BTreeSet::len)
    }
}

/// How often each pair occurs: key → (value → count above zero).
#[derive(Debug)]
pub struct Counts<K, V>(HashMap<K, BTreeMap<V, usize>>);

impl<K, V> Default for Counts<K, V> {
    fn default() -> Self {
        Counts(HashMap::new())
    }
}

impl<K: Hash + Eq, V: Ord> Counts<K, V> {
    /// Counts one more; true when it is the first.
    pub fn up(&mut self, key: K, value: V) -> bool {
        let count = self.0.entry(key).or_default().entry(value).or_insert(0);
        *count += 1;
        *count == 1
    }

    /// Counts one less; true when it was the last.
    pub fn down(&mut self, key: &K, value: &V) -> bool {
        let Some(values) = self.0.get_mut(key) else {
            return false;
        };
        let Some(count) = values.get_mut(value) else {
            return false;
        };
        *count -= 1;
        let last = *count == 0;
        if last {
            values.remove(value);
            if values.is_empty() {
                self.0.remove(key);
            }
        }
        last
    }

    /// The values of a key, with their counts.
    pub fn of(&self, key: &K) -> impl Iterator<Item = (&V, usize)> {
        self.0.get(key).into_iter().flatten().map(|(v, n)| (v, *n))
    }

    /// Whether the pair occurs.
    pub fn contains(&self, key: &K, value: &V) -> bool {
        self.0
            .get(key)
            .is_some_and(|values| values.contains_key(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_tell_the_first_and_the_last() {
        let mut counts = Counts::default();
        assert!(counts.up("k", 1));
        assert!(!counts.up("k", 1));
        assert!(!counts.down(&"k", &1));
        assert!(counts.down(&"k", &1));
        assert!(!counts.down(&"k", &1), "there is none");
        assert_eq!(counts.of(&"k").count(), 0);
    }
}
