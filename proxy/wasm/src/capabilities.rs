//! What a plugin may do to the world outside of its exchange: which clusters it may call, which properties it may read,
//! how finely it may see the time.

/// What a plugin may do. Default: everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Capabilities {
    /// The clusters it may call; none for all.
    pub call: Option<Vec<String>>,
    /// The groups of properties it may read; none for all.
    pub read: Option<PropertyGroups>,
    /// Clocks tell it the time in steps of a millisecond.
    pub coarse_clock: bool,
}

impl Capabilities {
    /// Whether it may call this cluster.
    pub(crate) fn may_call(&self, cluster: &str) -> bool {
        self.call.as_ref().is_none_or(|clusters| clusters.iter().any(|known| known == cluster))
    }

    /// Whether it may read the property at this path.
    pub(crate) fn may_read(&self, path: &[u8]) -> bool {
        let Some(allowed) = self.read else { return true };
        PropertyGroup::of(path).is_none_or(|group| allowed.contains(group))
    }

    /// A moment as the plugin may see it, in nanoseconds.
    pub(crate) fn moment(&self, nanoseconds: u64) -> u64 {
        const MILLISECOND: u64 = 1_000_000;
        if self.coarse_clock { nanoseconds - nanoseconds % MILLISECOND } else { nanoseconds }
    }
}

/// A group of properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PropertyGroup {
    /// `request.*`
    Request = 1,
    /// `response.*`
    Response = 2,
    /// `connection.*`, `source.*`, `destination.*`, `connection_id`: the client and its connection.
    Connection = 4,
    /// `upstream.*`: the endpoint.
    Upstream = 8,
    /// `xds.*`, `node`, `route_name`, `cluster_name` and the like: the proxy and its decisions.
    Proxy = 16,
    /// Everything else: what filters have set.
    Filters = 32,
}

impl PropertyGroup {
    /// Whether the host answers for all that is below the path's first segment, so that filters cannot set it: those that decide by a
    /// client's certificate must not be told of one by another filter.
    #[inline]
    pub(crate) fn is_of_host(path: &[u8]) -> bool {
        PropertyGroup::of(path) != Some(PropertyGroup::Filters)
    }

    /// The group of a path, by its first segment; none for what every plugin must know, its own names.
    fn of(path: &[u8]) -> Option<PropertyGroup> {
        let first = &path[..path.iter().position(|byte| *byte == 0).unwrap_or(path.len())];
        Some(match first {
            b"plugin_name" | b"plugin_root_id" | b"plugin_vm_id" => return None,
            b"request" => PropertyGroup::Request,
            b"response" => PropertyGroup::Response,
            b"connection" | b"connection_id" | b"source" | b"destination" => PropertyGroup::Connection,
            b"upstream" => PropertyGroup::Upstream,
            b"xds"
            | b"node"
            | b"cluster_name"
            | b"cluster_metadata"
            | b"route_name"
            | b"route_metadata"
            | b"listener_direction"
            | b"listener_metadata"
            | b"upstream_host_metadata"
            | b"upstream_filter_state"
            | b"metadata"
            | b"virtual_host_name" => PropertyGroup::Proxy,
            _ => PropertyGroup::Filters,
        })
    }
}

/// A set of [`PropertyGroup`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PropertyGroups(u8);

impl PropertyGroups {
    /// Whether the group is in the set.
    pub fn contains(self, group: PropertyGroup) -> bool {
        self.0 & group as u8 != 0
    }
}

impl FromIterator<PropertyGroup> for PropertyGroups {
    fn from_iter<T: IntoIterator<Item = PropertyGroup>>(groups: T) -> PropertyGroups {
        PropertyGroups(groups.into_iter().fold(0, |set, group| set | group as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_told_by_the_first_segment() {
        let may = Capabilities {
            read: Some([PropertyGroup::Request, PropertyGroup::Filters].into_iter().collect()),
            ..Capabilities::default()
        };
        for path in [&b"request\0path"[..], b"request", b"my\0own", b"plugin_root_id", b""] {
            assert!(may.may_read(path), "{path:?}");
        }
        for path in [&b"response\0code"[..], b"source\0address", b"connection_id", b"upstream", b"xds\0node"]
        {
            assert!(!may.may_read(path), "{path:?}");
        }
        assert!(Capabilities::default().may_read(b"upstream\0address"));
    }

    #[test]
    fn a_coarse_clock_has_milliseconds() {
        let coarse = Capabilities { coarse_clock: true, ..Capabilities::default() };
        assert_eq!(coarse.moment(1_234_567_890), 1_234_000_000);
        assert_eq!(Capabilities::default().moment(1_234_567_890), 1_234_567_890);
    }
}
