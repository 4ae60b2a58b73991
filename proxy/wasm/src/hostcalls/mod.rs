//! The host's functions, one file per section of the Proxy-Wasm specification.

use std::collections::HashMap;

use wasmtime::{Engine, FuncType, Linker, ValType};

use crate::remains::Data;

mod buffers;
pub(crate) mod clock;
mod contexts;
mod foreign;
mod grpc;
mod headers;
mod http_calls;
mod log;
mod metrics;
mod properties;
mod shared_data;
mod shared_queues;
mod streams;
mod toolchain;
mod wasi;

pub(crate) use foreign::{Declarations, Declared};

/// All functions the host offers, by module and name, with their types.
pub(crate) struct Functions {
    linker: Linker<Data>,
    signatures: HashMap<(&'static str, &'static str), String>,
}

/// Defines hostcalls that answer a status: `"name" => function(argument: type, …)`.
macro_rules! functions {
    ($functions:expr, $module:expr, $allowed:ident, {
        $($name:literal => $function:path [$($argument:ident : $type:ty),*];)*
    }) => {
        $(
            $functions.define(
                $module,
                $name,
                &[$(<$type as $crate::hostcalls::Letter>::LETTER),*],
                |caller: wasmtime::Caller<'_, $crate::remains::Data> $(, $argument: $type)*| {
                    $crate::memory::run(caller, $crate::memory::Allowed::$allowed, |call| {
                        $function(call, $($argument),*)
                    })
                },
            )?;
        )*
    };
}
pub(crate) use functions;

/// A type's letter in signatures.
pub(crate) trait Letter {
    const LETTER: char;
}

impl Letter for u32 {
    const LETTER: char = 'i';
}

impl Letter for u64 {
    const LETTER: char = 'I';
}

impl Letter for i64 {
    const LETTER: char = 'I';
}

impl Functions {
    /// Links everything, once per engine.
    pub(crate) fn link(engine: &Engine) -> wasmtime::Result<Functions> {
        let mut functions = Functions { linker: Linker::new(engine), signatures: HashMap::new() };
        log::link(&mut functions)?;
        clock::link(&mut functions)?;
        buffers::link(&mut functions)?;
        headers::link(&mut functions)?;
        properties::link(&mut functions)?;
        streams::link(&mut functions)?;
        contexts::link(&mut functions)?;
        http_calls::link(&mut functions)?;
        grpc::link(&mut functions)?;
        shared_data::link(&mut functions)?;
        shared_queues::link(&mut functions)?;
        metrics::link(&mut functions)?;
        foreign::link(&mut functions)?;
        wasi::link(&mut functions)?;
        toolchain::link(&mut functions)?;
        Ok(functions)
    }

    pub(crate) fn linker(&self) -> &Linker<Data> {
        &self.linker
    }

    /// Every function: module, name, signature.
    #[cfg(test)]
    pub(crate) fn all(&self) -> Vec<(String, String, String)> {
        let all = self.signatures.iter();
        all.map(|((module, name), signature)| (module.to_string(), name.to_string(), signature.clone()))
            .collect()
    }

    /// Whether the function is offered with this very type.
    pub(crate) fn offers(&self, module: &str, name: &str, wanted: &FuncType) -> bool {
        let letter = |ty: ValType| match ty {
            ValType::I32 => 'i',
            ValType::I64 => 'I',
            ValType::F32 => 'f',
            ValType::F64 => 'F',
            _ => '?',
        };
        let parameters: String = wanted.params().map(letter).collect();
        let results: String = wanted.results().map(letter).collect();
        let offered = self.signatures.iter().find(|((m, n), _)| *m == module && *n == name);
        offered.is_some_and(|(_, signature)| *signature == format!("{parameters}>{results}"))
    }

    /// A function that answers a status.
    pub(crate) fn define<P, R>(
        &mut self,
        module: &'static str,
        name: &'static str,
        parameters: &[char],
        function: impl wasmtime::IntoFunc<Data, P, R>,
    ) -> wasmtime::Result<()> {
        let parameters: String = parameters.iter().collect();
        self.define_as(module, name, format!("{parameters}>i"), function)
    }

    /// A function of any signature: letters of the parameters, `>`, letters of the results.
    pub(crate) fn define_as<P, R>(
        &mut self,
        module: &'static str,
        name: &'static str,
        signature: String,
        function: impl wasmtime::IntoFunc<Data, P, R>,
    ) -> wasmtime::Result<()> {
        self.linker.func_wrap(module, name, function)?;
        self.signatures.insert((module, name), signature);
        Ok(())
    }
}
