//! A VM's metric ids, for the hostcalls for metrics.

use std::collections::HashMap;
use std::sync::Arc;

use crate::metrics::{MetricKind, Series};
use crate::status::Status;

/// The series a VM knows, by id. Ids are the VM's own, so that a guest reaches only what it defined.
#[derive(Default)]
pub(crate) struct MetricTable {
    /// By id - 1.
    series: Vec<Arc<Series>>,
    /// By address.
    ids: HashMap<usize, u32>,
    /// Under the name that a series was first defined by, so that to define it again takes no lock. Not more of them than series.
    names: HashMap<Box<[u8]>, (MetricKind, u32)>,
}

impl MetricTable {
    /// Series of a VM, by name and labelled.
    const MAX: usize = 10_000;

    /// The id of a series.
    pub(crate) fn id(&mut self, series: Arc<Series>) -> Result<u32, Status> {
        let address = Arc::as_ptr(&series).addr();
        if let Some(id) = self.ids.get(&address) {
            return Ok(*id);
        }
        if self.series.len() >= MetricTable::MAX {
            return Err(Status::InternalFailure);
        }
        self.series.push(series);
        let id = self.series.len() as u32;
        self.ids.insert(address, id);
        Ok(id)
    }

    /// The id of a series that has been defined here under this name, as `proxy_define_metric` got it.
    pub(crate) fn defined(&self, name: &[u8], kind: MetricKind) -> Option<u32> {
        self.names.get(name).filter(|(of_kind, _)| *of_kind == kind).map(|(_, id)| *id)
    }

    /// The id of a series under its name, which is remembered if it is the series' first.
    pub(crate) fn define(
        &mut self,
        name: &[u8],
        kind: MetricKind,
        series: Arc<Series>,
    ) -> Result<u32, Status> {
        let known = self.series.len();
        let id = self.id(series)?;
        if self.series.len() > known {
            self.names.insert(name.into(), (kind, id));
        }
        Ok(id)
    }

    pub(crate) fn find(&self, id: u32) -> Result<&Series, Status> {
        let index = (id as usize).checked_sub(1).ok_or(Status::NotFound)?;
        self.series.get(index).map(|series| &**series).ok_or(Status::NotFound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_name_is_remembered_with_its_type_once_for_each_series() {
        let (metrics, mut table) = (Metrics::default(), MetricTable::default());
        let series = |name| metrics.define(name, MetricKind::Counter, || true).unwrap();
        assert_eq!(table.defined(b"a.b", MetricKind::Counter), None);
        let id = table.define(b"a.b", MetricKind::Counter, series("a.b")).unwrap();
        assert_eq!(table.defined(b"a.b", MetricKind::Counter), Some(id));
        assert_eq!(table.defined(b"a.b", MetricKind::Gauge), None, "which is another series");
        // Another spelling of the same series: it would take memory that nobody accounts for.
        assert_eq!(table.define(b"a_b", MetricKind::Counter, series("a_b")), Ok(id));
        assert_eq!(table.defined(b"a_b", MetricKind::Counter), None);
        assert_eq!(table.names.len(), 1);
    }
}
