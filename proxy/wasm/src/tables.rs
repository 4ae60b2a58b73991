//! A VM's metric ids.

use std::collections::HashMap;
use std::sync::Arc;

use crate::metrics::Series;
use crate::status::Status;

/// The series a VM knows, by id. Ids are the VM's own, so that a guest reaches only what it defined.
#[derive(Default)]
pub(crate) struct MetricTable {
    /// By id - 1.
    series: Vec<Arc<Series>>,
    /// By address.
    ids: HashMap<usize, u32>,
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

    pub(crate) fn find(&self, id: u32) -> Result<&Series, Status> {
        let index = (id as usize).checked_sub(1).ok_or(Status::NotFound)?;
        self.series.get(index).map(|series| &**series).ok_or(Status::NotFound)
    }
}
