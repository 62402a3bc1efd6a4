//! What dashboards read: CoreDNS's metric names, and a few of our own.
//!
//! Counters of the hot path are looked up once and indexed by small numbers afterwards.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::upstream::ExchangeError;
use crate::upstream::Resolved;
use crate::wire::{rcode, rtype};

/// CoreDNS's name of a server on port 53.
const SERVER: &str = "dns://:53";
/// Types with a label of their own; all others share the last.
const TYPES: [(u16, &str); 11] = [
    (rtype::A, "A"),
    (rtype::AAAA, "AAAA"),
    (rtype::SRV, "SRV"),
    (rtype::PTR, "PTR"),
    (rtype::CNAME, "CNAME"),
    (rtype::TXT, "TXT"),
    (rtype::MX, "MX"),
    (rtype::NS, "NS"),
    (rtype::SOA, "SOA"),
    (rtype::HTTPS, "HTTPS"),
    (0, "other"),
];
/// Response codes that are given.
const RCODES: [u16; 7] = [
    rcode::NOERROR,
    rcode::FORMERR,
    rcode::SERVFAIL,
    rcode::NXDOMAIN,
    rcode::NOTIMP,
    rcode::REFUSED,
    rcode::BADVERS,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    server: &'static str,
    zone: &'static str,
    view: &'static str,
    proto: &'static str,
    family: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    server: &'static str,
    zone: &'static str,
    view: &'static str,
    rcode: &'static str,
    plugin: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabels {
    server: &'static str,
    zone: &'static str,
    view: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SizeLabels {
    server: &'static str,
    zone: &'static str,
    view: &'static str,
    proto: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabels {
    server: &'static str,
    r#type: &'static str,
    zones: &'static str,
    view: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProxyLabels {
    proxy_name: &'static str,
    to: String,
    rcode: String,
}

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Cluster,
    Forward,
}

/// One answered question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    pub(crate) transport: Transport,
    pub(crate) client: IpAddr,
    /// 0 when there was no question.
    pub(crate) qtype: u16,
    pub(crate) rcode: u16,
    pub(crate) source: Source,
    pub(crate) request_bytes: usize,
    pub(crate) response_bytes: usize,
    pub(crate) duration: Duration,
}

/// The server's counters.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    responses: Family<ResponseLabels, Counter>,
    durations: Family<TypeLabels, Histogram>,
    request_sizes: Family<SizeLabels, Histogram>,
    response_sizes: Family<SizeLabels, Histogram>,
    cache_hits: Family<CacheLabels, Counter>,
    proxy: Family<ProxyLabels, Histogram>,
    requests_by: Vec<Counter>,
    responses_by: Vec<Counter>,
    durations_by: Vec<Histogram>,
    request_sizes_by: Vec<Histogram>,
    response_sizes_by: Vec<Histogram>,
    cache_hits_success: Counter,
    cache_hits_denial: Counter,
    pub(crate) cache_misses: Counter,
    pub(crate) cache_requests: Counter,
    pub(crate) cache_evictions: Counter,
    pub(crate) cache_entries: Gauge,
    pub(crate) served_stale: Counter,
    pub(crate) forward_rejects: Counter,
    pub(crate) dropped: Counter,
    pub(crate) revision: Gauge,
    pub(crate) names: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let durations = Family::new_with_constructor(duration_histogram as fn() -> Histogram);
        let request_sizes = Family::new_with_constructor(size_histogram as fn() -> Histogram);
        let response_sizes = Family::new_with_constructor(size_histogram as fn() -> Histogram);
        let (requests, responses) = (Family::default(), Family::default());
        let cache_hits: Family<CacheLabels, Counter> = Family::default();
        let hits = |r#type| {
            let labels = CacheLabels {
                server: SERVER,
                r#type,
                zones: ".",
                view: "",
            };
            cache_hits.get_or_create_owned(&labels)
        };
        Self {
            requests_by: requests_by(&requests),
            responses_by: responses_by(&responses),
            durations_by: TYPES
                .iter()
                .map(|(_, r#type)| durations.get_or_create_owned(&type_labels(r#type)))
                .collect(),
            request_sizes_by: sizes_by(&request_sizes),
            response_sizes_by: sizes_by(&response_sizes),
            cache_hits_success: hits("success"),
            cache_hits_denial: hits("denial"),
            requests,
            responses,
            durations,
            request_sizes,
            response_sizes,
            cache_hits,
            proxy: Family::new_with_constructor(duration_histogram as fn() -> Histogram),
            cache_misses: Counter::default(),
            cache_requests: Counter::default(),
            cache_evictions: Counter::default(),
            cache_entries: Gauge::default(),
            served_stale: Counter::default(),
            forward_rejects: Counter::default(),
            dropped: Counter::default(),
            revision: Gauge::default(),
            names: Gauge::default(),
        }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("coredns_dns_requests", "Questions", self.requests.clone());
        registry.register("coredns_dns_responses", "Answers", self.responses.clone());
        let help = "From question to answer";
        registry.register(
            "coredns_dns_request_duration_seconds",
            help,
            self.durations.clone(),
        );
        let sizes = self.request_sizes.clone();
        registry.register(
            "coredns_dns_request_size_bytes",
            "Sizes of questions",
            sizes,
        );
        let sizes = self.response_sizes.clone();
        registry.register("coredns_dns_response_size_bytes", "Sizes of answers", sizes);
        registry.register(
            "coredns_cache_hits",
            "Answers from the cache",
            self.cache_hits.clone(),
        );
        let misses = self.cache_misses.clone();
        registry.register("coredns_cache_misses", "Questions not in the cache", misses);
        let requests = self.cache_requests.clone();
        registry.register("coredns_cache_requests", "Questions to the cache", requests);
        let evictions = self.cache_evictions.clone();
        registry.register(
            "coredns_cache_evictions",
            "Entries dropped for room",
            evictions,
        );
        let entries = self.cache_entries.clone();
        registry.register("coredns_cache_entries", "Entries of the cache", entries);
        let stale = self.served_stale.clone();
        registry.register(
            "coredns_cache_served_stale",
            "Answers given after their time",
            stale,
        );
        let help = "From question to answer of an upstream";
        registry.register(
            "coredns_proxy_request_duration_seconds",
            help,
            self.proxy.clone(),
        );
        let rejects = self.forward_rejects.clone();
        let help = "Questions refused because too many wait";
        registry.register("coredns_forward_max_concurrent_rejects", help, rejects);
        registry.register(
            "skep_dns_dropped",
            "Packets that got no answer",
            self.dropped.clone(),
        );
        let help = "Revision of the names that are served";
        registry.register("skep_dns_snapshot_revision", help, self.revision.clone());
        registry.register(
            "skep_dns_names",
            "Names that are served",
            self.names.clone(),
        );
    }

    pub(crate) fn served(&self, served: Served) {
        let Served {
            transport,
            client,
            qtype,
            rcode,
            source,
            ..
        } = served;
        let family = usize::from(client.is_ipv6());
        let index = type_index(qtype);
        self.requests_by[(transport as usize * 2 + family) * TYPES.len() + index].inc();
        self.responses_by[source as usize * RCODES.len() + rcode_index(rcode)].inc();
        self.durations_by[index].observe(served.duration.as_secs_f64());
        self.request_sizes_by[transport as usize].observe(bytes(served.request_bytes));
        self.response_sizes_by[transport as usize].observe(bytes(served.response_bytes));
    }

    pub(crate) fn cache_hit(&self, rcode: ResponseCode) {
        self.cache_requests.inc();
        match rcode {
            ResponseCode::NoError => self.cache_hits_success.inc(),
            _ => self.cache_hits_denial.inc(),
        };
    }

    pub(crate) fn cache_miss(&self) {
        self.cache_requests.inc();
        self.cache_misses.inc();
    }

    pub(crate) fn proxied(
        &self,
        to: SocketAddr,
        asked: &Result<Resolved, ExchangeError>,
        duration: Duration,
    ) {
        let rcode = match asked {
            Ok(resolved) => rcode_name(resolved.rcode.into()),
            Err(_) => "ERROR",
        };
        let labels = ProxyLabels {
            proxy_name: "forward",
            to: to.to_string(),
            rcode: rcode.to_owned(),
        };
        self.proxy
            .get_or_create(&labels)
            .observe(duration.as_secs_f64());
    }
}

fn requests_by(requests: &Family<RequestLabels, Counter>) -> Vec<Counter> {
    let mut all = Vec::new();
    for proto in ["udp", "tcp"] {
        for family in ["1", "2"] {
            for (_, r#type) in TYPES {
                let labels = RequestLabels {
                    server: SERVER,
                    zone: ".",
                    view: "",
                    proto,
                    family,
                    r#type,
                };
                all.push(requests.get_or_create_owned(&labels));
            }
        }
    }
    all
}

fn responses_by(responses: &Family<ResponseLabels, Counter>) -> Vec<Counter> {
    let mut all = Vec::new();
    for plugin in ["kubernetes", "forward"] {
        for rcode in RCODES.map(rcode_name) {
            let labels = ResponseLabels {
                server: SERVER,
                zone: ".",
                view: "",
                rcode,
                plugin,
            };
            all.push(responses.get_or_create_owned(&labels));
        }
    }
    all
}

fn sizes_by(sizes: &Family<SizeLabels, Histogram>) -> Vec<Histogram> {
    let labels = |proto| SizeLabels {
        server: SERVER,
        zone: ".",
        view: "",
        proto,
    };
    ["udp", "tcp"]
        .iter()
        .map(|proto| sizes.get_or_create_owned(&labels(proto)))
        .collect()
}

fn type_labels(r#type: &'static str) -> TypeLabels {
    TypeLabels {
        server: SERVER,
        zone: ".",
        view: "",
        r#type,
    }
}

fn duration_histogram() -> Histogram {
    // As CoreDNS: 16 buckets from 0.25 ms, each twice the last.
    Histogram::new(exponential_buckets(0.000_25, 2.0, 16))
}

fn size_histogram() -> Histogram {
    let sizes = [
        0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16_000, 32_000, 48_000, 64_000,
    ];
    Histogram::new(sizes.map(f64::from))
}

fn type_index(qtype: u16) -> usize {
    TYPES
        .iter()
        .position(|(number, _)| *number == qtype)
        .unwrap_or(TYPES.len() - 1)
}

fn rcode_index(rcode: u16) -> usize {
    RCODES
        .iter()
        .position(|number| *number == rcode)
        .unwrap_or(rcode::SERVFAIL.into())
}

/// A response code's name as metrics and tools write it.
pub(crate) fn rcode_name(rcode: u16) -> &'static str {
    match rcode {
        rcode::NOERROR => "NOERROR",
        rcode::FORMERR => "FORMERR",
        rcode::SERVFAIL => "SERVFAIL",
        rcode::NXDOMAIN => "NXDOMAIN",
        rcode::NOTIMP => "NOTIMP",
        rcode::REFUSED => "REFUSED",
        rcode::BADVERS => "BADVERS",
        _ => "other",
    }
}

fn bytes(len: usize) -> f64 {
    f64::from(u32::try_from(len).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_served_question_shows_under_the_names_that_dashboards_use() {
        let metrics = Metrics::new();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        metrics.served(Served {
            transport: Transport::Tcp,
            client: "::1".parse().unwrap(),
            qtype: rtype::SRV,
            rcode: rcode::NXDOMAIN,
            source: Source::Cluster,
            request_bytes: 60,
            response_bytes: 140,
            duration: Duration::from_micros(20),
        });
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "coredns_dns_requests_total{server=\"dns://:53\",zone=\".\",view=\"\",proto=\"tcp\",\
             family=\"2\",type=\"SRV\"} 1",
            "coredns_dns_responses_total{server=\"dns://:53\",zone=\".\",view=\"\",\
             rcode=\"NXDOMAIN\",plugin=\"kubernetes\"} 1",
            "coredns_dns_request_duration_seconds_count{server=\"dns://:53\",zone=\".\",view=\"\",\
             type=\"SRV\"} 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
