//! From a filter in the configuration to what the Wasm host makes a plugin of.

use std::sync::Arc;

use meshgate_config as config;
use meshgate_config::{FilterLimits, FilterUse, WasmBounds};
use meshgate_wasm::{
    Capabilities, Compatibility, Engine, Isolation, Limits, ModuleBounds, Node, PluginSpec, PropertyForm,
    PropertyGroup,
};

use crate::modules::{CompiledModules, ModuleFiles};

/// What makes this filter's plugin; compiles its module if it is new.
pub(super) fn of(
    filter: &FilterUse,
    bounds: &WasmBounds,
    node: &Arc<Node>,
    files: &mut ModuleFiles,
    compiled: &mut CompiledModules,
    engine: &Engine,
) -> Result<PluginSpec, String> {
    let file = files.module(&filter.module)?;
    let bounds = ModuleBounds {
        bytes: bounds.module_size,
        functions: bounds.module_functions,
        function_bytes: bounds.function_size,
        compile_time: bounds.compile_time,
    };
    let module = compiled.compile(engine, &filter.name, file, &bounds).map_err(|error| error.to_string())?;
    let mut spec = PluginSpec::new(&filter.name, module, filter.configuration.to_bytes());
    spec.vm_id.clone_from(&filter.vm);
    spec.limits = limits(&filter.limits);
    spec.may = may(&filter.may);
    spec.isolation = match filter.isolation {
        config::Isolation::Shared => Isolation::Shared,
        config::Isolation::Exchange => Isolation::Exchange,
    };
    let surroundings = &filter.surroundings;
    spec.root_id.clone_from(&surroundings.root_id);
    spec.vm_configuration = surroundings.vm_configuration.to_bytes();
    spec.environment.clone_from(&surroundings.environment);
    spec.compatibility = compatibility(surroundings.compatibility);
    spec.node = Arc::clone(node);
    Ok(spec)
}

fn compatibility(wanted: config::Compatibility) -> Compatibility {
    Compatibility {
        stop_iteration: wanted.stop_iteration == config::StopIteration::HoldHeaders,
        prefer_malloc: wanted.allocator == config::Allocator::Malloc,
        strict_maps: wanted.absent_maps == config::AbsentMaps::BadArgument,
        properties: match wanted.properties {
            config::PropertyForm::Binary => PropertyForm::Binary,
            config::PropertyForm::Text => PropertyForm::Text,
        },
        empty_failures: wanted.failed_calls == config::FailedCalls::Empty,
        store_null: wanted.null_values == config::NullValues::Store,
    }
}

fn limits(limits: &FilterLimits) -> Limits {
    Limits {
        time: limits.time,
        body_time: limits.body_time,
        start_time: limits.start_time,
        cpu_percent: limits.cpu_percent,
        memory: limits.memory,
        total_memory: limits.total_memory,
        body: limits.body,
        pause: limits.pause,
        done: limits.done,
        contexts: limits.contexts,
        crashes: limits.crashes,
        hostcalls: limits.hostcalls,
        copied: limits.copied,
        log_lines: limits.log_lines,
        log_bytes: limits.log_bytes,
        spans: limits.spans,
        span_bytes: limits.span_bytes,
        http_calls: limits.http_calls,
        stream_http_calls: limits.stream_http_calls,
        grpc_calls: limits.grpc_calls,
        stream_grpc_calls: limits.stream_grpc_calls,
        grpc_queue: limits.grpc_queue,
        call_time: limits.call_time,
        call_body: limits.call_body,
        call_bytes: limits.call_bytes,
        call_depth: limits.call_depth,
        encodings: limits.encodings,
        metrics: limits.metrics,
        series: limits.series,
        shared_keys: limits.shared_keys,
        shared_bytes: limits.shared_bytes,
        queues: limits.queues,
        queue_items: limits.queue_items,
        queue_bytes: limits.queue_bytes,
        tick: limits.tick,
    }
}

fn may(may: &config::Capabilities) -> Capabilities {
    let group = |group: &config::PropertyGroup| match group {
        config::PropertyGroup::Request => PropertyGroup::Request,
        config::PropertyGroup::Response => PropertyGroup::Response,
        config::PropertyGroup::Connection => PropertyGroup::Connection,
        config::PropertyGroup::Upstream => PropertyGroup::Upstream,
        config::PropertyGroup::Proxy => PropertyGroup::Proxy,
        config::PropertyGroup::Filters => PropertyGroup::Filters,
    };
    Capabilities {
        call: may.call.clone(),
        read: may.read.as_ref().map(|groups| groups.iter().map(group).collect()),
        coarse_clock: may.clock == config::Clock::Coarse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_have_the_same_defaults() {
        assert_eq!(limits(&FilterLimits::default()), Limits::default());
        let bounds = WasmBounds::default();
        assert_eq!(bounds.memory, meshgate_wasm::Bounds::MEMORY);
        assert_eq!(bounds.exchange_instances, meshgate_wasm::Bounds::EXCHANGE_INSTANCES);
        let module = ModuleBounds::default();
        assert_eq!((bounds.module_size, bounds.module_functions), (module.bytes, module.functions));
        assert_eq!((bounds.function_size, bounds.compile_time), (module.function_bytes, module.compile_time));
        assert_eq!(may(&config::Capabilities::default()), Capabilities::default());
    }
}
