//! Virtual hosts: what is for which host.

use std::collections::HashMap;

use meshgate_conditions::{HostPattern, without_port};
use meshgate_sdk::ConfigError;

/// Virtual hosts by their names, and what is for all other hosts. The most precise name wins: exact before `*`, of those the
/// longest, and of the same name the one with the request's port.
#[derive(Debug)]
pub(crate) struct VirtualHosts<T> {
    exact: HashMap<String, usize>,
    /// `*.example.com:80` as `.example.com:80`.
    under: HashMap<String, usize>,
    any: Option<usize>,
    hosts: Vec<T>,
}

impl<T> VirtualHosts<T> {
    pub(crate) fn new() -> Self {
        Self { exact: HashMap::new(), under: HashMap::new(), any: None, hosts: Vec::new() }
    }

    /// Adds what is for hosts with one of these names: `NAME`, `*.NAME`, either with `:PORT`, or `*`.
    pub(crate) fn add(&mut self, names: &[String], host: T) -> Result<(), ConfigError> {
        let index = self.hosts.len();
        self.hosts.push(host);
        for (place, name) in names.iter().enumerate() {
            self.name(name, index).map_err(|error| error.at(format!("hosts/{place}")))?;
        }
        if names.is_empty() {
            return Err(ConfigError::new("a virtual host without a name is for nobody").at("hosts"));
        }
        Ok(())
    }

    /// Adds what is for hosts that nothing else is for.
    pub(crate) fn add_rest(&mut self, host: T) -> Result<(), ConfigError> {
        let index = self.hosts.len();
        self.hosts.push(host);
        self.name("*", index)
    }

    fn name(&mut self, text: &str, index: usize) -> Result<(), ConfigError> {
        let known = if text == "*" {
            self.any.replace(index)
        } else {
            let host = without_port(text.as_bytes()).len();
            let (host, port) = text.split_at(host);
            if !port.is_empty() && port[1..].parse::<u16>().is_err() {
                return Err(ConfigError::new(format_args!("{text:?}: not a port")));
            }
            match HostPattern::new(host)? {
                HostPattern::Exact(name) => self.exact.insert(name + port, index),
                HostPattern::Under(name) => self.under.insert(name + port, index),
            }
        };
        match known {
            None => Ok(()),
            Some(known) if known == index => {
                Err(ConfigError::new(format_args!("{text:?} stands here twice")))
            }
            Some(_) => Err(ConfigError::new(format_args!("{text:?} is another virtual host's already"))),
        }
    }

    /// What is for an authority, which is asked for only if that makes a difference.
    pub(crate) fn find<'a>(&self, authority: impl FnOnce() -> &'a [u8]) -> Option<&T> {
        let index =
            if self.exact.is_empty() && self.under.is_empty() { self.any } else { self.index(authority()) };
        self.hosts.get(index?)
    }

    fn index(&self, authority: &[u8]) -> Option<usize> {
        let Ok(authority) = std::str::from_utf8(authority) else { return self.any };
        let authority = authority.to_ascii_lowercase();
        let host = without_port(authority.as_bytes()).len();
        let known = |names: &HashMap<String, usize>, from: usize| {
            let with_port = authority.get(from..).and_then(|name| names.get(name));
            with_port.or_else(|| names.get(authority.get(from..host)?)).copied()
        };
        // From the left: the longest end of the name comes first. Something has to stand before it.
        let dots = authority.bytes().take(host).enumerate().skip(1).filter(|(_, byte)| *byte == b'.');
        known(&self.exact, 0)
            .or_else(|| dots.map(|(dot, _)| dot).find_map(|dot| known(&self.under, dot)))
            .or(self.any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> VirtualHosts<String> {
        let mut hosts = VirtualHosts::new();
        for name in names {
            hosts.add(&[(*name).to_owned()], (*name).to_owned()).unwrap();
        }
        hosts
    }

    #[test]
    fn the_most_precise_name_wins() {
        let hosts = hosts(&[
            "*",
            "*.example",
            "*.shop.example",
            "*.shop.example:81",
            "shop.example",
            "Shop.Example:81",
            "[::1]",
        ]);
        for (authority, expected) in [
            ("shop.example", "shop.example"),
            ("SHOP.example:80", "shop.example"),
            ("shop.example:81", "Shop.Example:81"),
            ("a.shop.example", "*.shop.example"),
            ("a.b.shop.example:81", "*.shop.example:81"),
            ("other.example:81", "*.example"),
            ("example", "*"),
            (".example", "*"),
            ("shop.example.evil", "*"),
            ("[::1]:8080", "[::1]"),
            ("", "*"),
        ] {
            assert_eq!(hosts.find(|| authority.as_bytes()).unwrap(), expected, "{authority}");
        }
        assert_eq!(hosts.find(|| b"\xff").unwrap(), "*");
    }

    #[test]
    fn without_a_rest_unknown_hosts_have_nothing() {
        assert!(hosts(&["a.example"]).find(|| b"b.example").is_none());
        assert!(VirtualHosts::<()>::new().find(|| b"a").is_none());
    }

    #[test]
    fn wrong_and_repeated_names_are_refused_with_their_place() {
        let refused = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            hosts(&["taken", "*"]).add(&names, String::new()).unwrap_err().to_string()
        };
        assert!(refused(&[]).starts_with("hosts: "));
        for wrong in ["", "a b", "a*", "*a", "a:x", "a:70000", "a:", "http://a", "Taken", "*"] {
            assert!(refused(&["fine", wrong]).starts_with("hosts/1: "), "{wrong}");
        }
        assert!(refused(&["b", "B"]).contains("twice"));
    }
}
