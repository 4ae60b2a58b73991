//! What filters add to an exchange's entry in the access log. Kept by `filter`, written by `format`.

use bytes::Bytes;

/// Names and values that filters added to an entry, in the order in which they were first added. Few, so a list; nothing is
/// allocated before the first.
#[derive(Debug, Default)]
pub struct LogFields(Vec<Field>);

#[derive(Debug)]
struct Field {
    name: Box<str>,
    value: Bytes,
    /// The filter that it counts for: the one that added it last.
    place: u32,
}

impl LogFields {
    /// Of no exchange that a filter saw.
    pub const NONE: &'static LogFields = &LogFields(Vec::new());
    /// What a field counts beside its bytes, so that many without any do not come for nothing.
    const COST: usize = 16;

    /// Adds a field for the filter at this place, or puts it in the place of the one of that name. False, and no change, if
    /// that filter's fields would become more than `most` bytes.
    pub fn set(&mut self, place: u32, name: &str, value: Bytes, most: usize) -> bool {
        let cost = |name: &str, value: &[u8]| name.len() + value.len() + Self::COST;
        let others = self.0.iter().filter(|field| field.place == place && *field.name != *name);
        let others: usize = others.map(|field| cost(&field.name, &field.value)).sum();
        if others + cost(name, &value) > most {
            return false;
        }
        match self.0.iter_mut().find(|field| *field.name == *name) {
            Some(field) => (field.value, field.place) = (value, place),
            None => self.0.push(Field { name: name.into(), value, place }),
        }
        true
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        self.0.iter().map(|field| (&*field.name, &*field.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_one_field_and_each_filter_has_its_own_room() {
        let mut fields = LogFields::default();
        let mut set = |place, name, value: &'static str| fields.set(place, name, value.into(), 40);
        assert!(set(0, "a", "1234") && set(0, "a", "12345678"), "it replaces itself");
        assert!(!set(0, "b", ""), "25 and 17 are more than 40");
        assert!(set(1, "b", "x"));
        assert!(set(1, "a", "y"), "a field counts for who set it last");
        assert!(set(0, "c", "0"));
        let all: Vec<_> = fields.iter().collect();
        assert_eq!(all, [("a", &b"y"[..]), ("b", b"x"), ("c", b"0")]);
    }
}
