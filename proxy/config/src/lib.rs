//! Meshgate's configuration: one YAML file, checked as a whole.
//!
//! [`load`] reads the file into a tree that keeps positions, checks it against the JSON Schema of our own types and
//! against the schema in every module's manifest, resolves what one part says about another, and returns either a
//! [`Config`] that needs no further checking or [`Diagnostics`]: *every* mistake, each with file, line, column, the
//! line quoted and, where there is one, a hint. The proxy calls it at start and at each reload; `meshgate check` calls
//! it and prints what it says.
//!
//! This crate opens no sockets and runs no modules. What it must know of a module it asks through [`Modules`].

mod address;
mod assemble;
mod chains;
mod cluster;
mod compatibility;
mod diagnostic;
mod discovery;
mod document;
mod file;
mod files;
mod filters;
mod formats;
mod forwarded;
mod health;
mod isolation;
mod limits;
mod load;
mod manifest;
mod model;
mod modules;
mod opaque;
mod overload;
mod passthrough;
mod range;
mod references;
mod refusal;
mod scalars;
mod schema;
mod source;
mod tls;
mod tree;
mod units;
mod words;
mod yaml;

pub use address::{Address, SocketMode, UnixPath};
pub use cluster::{
    ClusterLimits, Endpoint, HashBy, HashKey, Labels, LoadBalancer, OutlierDetection, Subset, SuccessRate,
};
pub use compatibility::{
    AbsentMaps, Allocator, Compatibility, FailedCalls, NullValues, PropertyForm, StopIteration,
};
pub use diagnostic::{Diagnostic, Diagnostics};
pub use discovery::{AddressFamily, Discovery, Dns, DnsName, Locality, load_endpoints};
pub use document::load_document;
pub use file::schema;
pub use forwarded::Forwarded;
pub use health::{HealthCheck, HttpProbe, Probe};
pub use isolation::{Capabilities, Clock, Isolation, PropertyGroup};
pub use limits::{FilterLimits, WasmBounds};
pub use load::{Load, load, load_text};
pub use model::{
    AccessLog, AccessLogFormat, AccessLogOutput, Admin, Chain, ChainId, Cluster, ClusterProtocol, Config,
    Direction, Drain, FilterConfiguration, FilterUse, Listener, Metadata, NodeFacts, OnError, Protocol,
    ProxyProtocol, ProxyVersion, Surroundings,
};
pub use modules::{ModuleSource, Modules};
pub use opaque::Opaque;
pub use overload::Overload;
pub use passthrough::Passthrough;
pub use range::AddressRange;
pub use source::{Position, Source};
pub use tls::{
    CertificateDetail, CertificateFiles, ClientCertificates, ClusterTls, ForwardCertificate, ListenerTls,
    NamedFile, TlsVersion, UnknownNames,
};
pub use units::{UnitError, parse_duration, parse_size};
