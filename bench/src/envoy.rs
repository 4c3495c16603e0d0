//! Envoy's configuration as a proxy of HTTP/2 calls: one listener, one cluster, and nothing else switched on.

use serde_json::{Value, json};

/// How the connections of a proxy are protected.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Transport<'a> {
    /// Those that it takes.
    pub(crate) accepts: Option<Tls<'a>>,
    /// Those that it makes.
    pub(crate) connects: Option<Tls<'a>>,
}

/// Mutual TLS as Meshwork's: 1.3, and a peer that is known by the URI of its certificate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tls<'a> {
    /// The folder of its own certificate, as for `--tls-dir`.
    pub(crate) folder: &'a str,
    /// The URI that the peer's certificate must have.
    pub(crate) peer: &'a str,
}

/// A proxy that listens on `port` of this machine, in front of `endpoints`.
pub(crate) fn config(port: u16, endpoints: &[String], transport: Transport<'_>) -> String {
    let http2 = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} },
        },
    });
    let address = |host: &str, port: u16| json!({ "socket_address": { "address": host, "port_value": port } });
    let endpoint = |endpoint: &String| {
        let (host, port) = endpoint.rsplit_once(':').expect("host:port");
        json!({ "endpoint": { "address": address(host, port.parse().expect("a port")) } })
    };
    let mut chain = json!({ "filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "echo",
            "codec_type": "HTTP2",
            "route_config": { "virtual_hosts": [{
                "name": "echo", "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "echo", "timeout": "0s" } }],
            }] },
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
            }],
        },
    }] });
    let mut cluster = json!({
        "name": "echo", "type": "STATIC", "lb_policy": "LEAST_REQUEST", "connect_timeout": "1s",
        "typed_extension_protocol_options": http2,
        "load_assignment": {
            "cluster_name": "echo",
            "endpoints": [{ "lb_endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>() }],
        },
    });
    if let Some(tls) = transport.accepts {
        chain["transport_socket"] = tls.socket("DownstreamTlsContext", json!({ "require_client_certificate": true }));
    }
    if let Some(tls) = transport.connects {
        cluster["transport_socket"] = tls.socket("UpstreamTlsContext", json!({}));
    }
    json!({
        "static_resources": {
            "listeners": [{ "address": address("127.0.0.1", port), "filter_chains": [chain] }],
            "clusters": [cluster],
        },
    })
    .to_string()
}

impl Tls<'_> {
    fn socket(&self, kind: &str, mut context: Value) -> Value {
        let file = |name: &str| json!({ "filename": format!("{}/{name}", self.folder) });
        context["@type"] = format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}").into();
        context["common_tls_context"] = json!({
            "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
            "alpn_protocols": ["h2"],
            "tls_certificates": [{ "certificate_chain": file("cert.pem"), "private_key": file("key.pem") }],
            "validation_context": {
                "trusted_ca": file("ca.pem"),
                "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": self.peer } }],
            },
        });
        json!({ "name": "envoy.transport_sockets.tls", "typed_config": context })
    }
}
