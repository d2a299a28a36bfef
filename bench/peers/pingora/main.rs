//! Pingora as a gRPC gateway: `pingora PORT BACKEND`. A program and not a configuration file, since Pingora is a library.
//!
//! After https://github.com/cloudflare/pingora/tree/0.9.1/docs/user_guide (internals.md, phase.md, peer.md, pooling.md):
//! cleartext HTTP/2 to clients (`HttpServerOptions::h2c`) and to the backend (`set_http_version(2, 2)`), connections to
//! the backend pooled, which is the default; its limits for HTTP/2 are the defaults (`default_h2_options`).
//! Changed for this work: one thread, as all proxies here have one; up to 100 streams on a connection to the backend (the
//! default is 1, so that each call that is open would have a connection of its own); no timeout that a long stream
//! would meet (the default: none).

use async_trait::async_trait;
use pingora_core::apps::HttpServerOptions;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::Server;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::{http_proxy_service, ProxyHttp, Session};

const HOST: &str = "bench.example.com";
const PATH: &str = "/bench.Echo/Call";

struct Gateway {
    backend: HttpPeer,
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let uri = &session.req_header().uri;
        if uri.host() == Some(HOST) && uri.path() == PATH {
            return Ok(Box::new(self.backend.clone()));
        }
        Error::e_explain(ErrorType::HTTPStatus(404), "no such route")
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, port, backend] = arguments.as_slice() else {
        eprintln!("usage: pingora PORT BACKEND");
        std::process::exit(2);
    };
    let mut peer = HttpPeer::new(format!("127.0.0.1:{backend}"), false, HOST.to_string());
    peer.options.set_http_version(2, 2);
    peer.options.max_h2_streams = 100;
    let configuration = ServerConf { threads: 1, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, configuration);
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Gateway { backend: peer });
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    proxy.app_logic_mut().expect("a service that was just made has its logic").server_options = Some(options);
    proxy.add_tcp(&format!("127.0.0.1:{port}"));
    server.add_service(proxy);
    server.run_forever();
}
