//! What filters say of an exchange's entry in the access log. Kept by `filter`, written by `format`.

use bytes::Bytes;

/// Names and values that filters added to an entry, in the order in which they were first added. Few, so a list; nothing is
/// allocated before the first.
#[derive(Debug, Default)]
pub struct LogFields {
    fields: Vec<Field>,
    /// A line in the place of the one that the log would have.
    line: Option<Bytes>,
}

#[derive(Debug)]
struct Field {
    name: Box<str>,
    value: Bytes,
    /// The filter that it counts for: the one that added it last.
    place: u32,
}

impl LogFields {
    /// Of no exchange that a filter saw.
    pub const NONE: &'static LogFields = &LogFields { fields: Vec::new(), line: None };
    /// What a field counts beside its bytes, so that many without any do not come for nothing.
    const COST: usize = 16;

    /// Adds a field for the filter at this place, or puts it in the place of the one of that name. False, and no change, if
    /// that filter's fields would become more than `most` bytes.
    pub fn set(&mut self, place: u32, name: &str, value: Bytes, most: usize) -> bool {
        let cost = |name: &str, value: &[u8]| name.len() + value.len() + Self::COST;
        let others = self.fields.iter().filter(|field| field.place == place && *field.name != *name);
        let others: usize = others.map(|field| cost(&field.name, &field.value)).sum();
        if others + cost(name, &value) > most {
            return false;
        }
        match self.fields.iter_mut().find(|field| *field.name == *name) {
            Some(field) => (field.value, field.place) = (value, place),
            None => self.fields.push(Field { name: name.into(), value, place }),
        }
        true
    }

    /// Puts a line in the place of the one that the log would have, for the filter at this place. False, and no change, if it and
    /// that filter's fields are more than `most` bytes.
    pub fn set_line(&mut self, place: u32, line: Bytes, most: usize) -> bool {
        let own = self.fields.iter().filter(|field| field.place == place);
        let fields: usize = own.map(|field| field.name.len() + field.value.len() + Self::COST).sum();
        let fits = fields + line.len() <= most;
        if fits {
            self.line = Some(line);
        }
        fits
    }

    /// The line, if a filter has said one.
    pub fn line(&self) -> Option<&[u8]> {
        self.line.as_deref()
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|field| (&*field.name, &*field.value))
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
        assert!(!fields.set_line(0, Bytes::from_static(&[b'x'; 24]), 40), "with a field of 17 bytes");
        assert!(fields.set_line(0, Bytes::from_static(b"x"), 40));
        assert_eq!(fields.line(), Some(&b"x"[..]));
        let all: Vec<_> = fields.iter().collect();
        assert_eq!(all, [("a", &b"y"[..]), ("b", b"x"), ("c", b"0")]);
    }
}
