//! Dial-back tunnels over real TCP: a poke, a connection of the node's own, requests inside it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::{body::Incoming, client::conn::http1, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use toono_fleet::{Fleet, FleetLinkError};
use toono_http::{Body, Handler, server::Limits};
use toono_session::{NodeEvent, Poke};

use crate::world::{Node, World, node_user};

/// The fleet's handler on a port, where every caller is the node `edge-a`.
pub(crate) async fn serve(fleet: &Fleet) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let inner = fleet.handler();
    let handler: Handler = Arc::new(move |mut request| {
        request.extensions_mut().insert(node_user("edge-a"));
        inner(request)
    });
    tokio::spawn(toono_http::server::serve(
        listener,
        None,
        handler,
        Limits::default(),
        std::future::pending(),
    ));
    address
}

/// What a node does on a dial-back poke: connect, upgrade, serve HTTP/2.
pub(crate) async fn dial_back(server: std::net::SocketAddr, ticket: u64) -> StatusCode {
    let stream = TcpStream::connect(server).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = Request::post("/fleet/v1/tunnel")
        .header("host", "server")
        .header("connection", "upgrade")
        .header("upgrade", "toono-tunnel")
        .header("toono-ticket", ticket)
        .body(toono_http::empty())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let upgraded = hyper::upgrade::on(response).await.unwrap();
        let service = service_fn(|request: Request<Incoming>| async move {
            let path = request.uri().path_and_query().unwrap().to_string();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let answer = format!("{path} {}", String::from_utf8_lossy(&body));
            Ok::<_, Infallible>(Response::new(toono_http::full(answer)))
        });
        tokio::spawn(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(upgraded, service),
        );
    }
    status
}

pub(crate) async fn ticket(node: &mut Node) -> u64 {
    loop {
        if let NodeEvent::Poke(Poke::DialBack { ticket }) = node.event().await {
            return ticket;
        }
    }
}

fn logs(body: &'static str) -> Request<Body> {
    Request::get("/containerLogs/default/web/c?follow=true")
        .header("connection", "upgrade")
        .body(toono_http::full(body))
        .unwrap()
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn requests_share_one_tunnel_which_closes_when_no_one_asks() {
    let world = World::start().await;
    let server = serve(&world.fleet).await;
    let mut node = world.join("edge-a").await;
    node.beat().await;
    let sends =
        futures::future::join_all((0..20).map(|_| world.fleet.send("edge-a", logs("hello"))));
    let dial = async {
        let ticket = ticket(&mut node).await;
        assert_eq!(dial_back(server, ticket).await, StatusCode::SWITCHING_PROTOCOLS);
        ticket
    };
    let (responses, ticket) = tokio::join!(sends, dial);
    assert_eq!(world.overview("edge-a").await["tunnels"], json!(1));
    for response in responses {
        assert_eq!(text(response.unwrap()).await, "/containerLogs/default/web/c?follow=true hello");
    }
    assert_eq!(dial_back(server, ticket).await, StatusCode::FORBIDDEN, "a ticket is good for once");
    while world.overview("edge-a").await["tunnels"] != json!(0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The next request makes the node dial anew.
    let (response, ()) = tokio::join!(world.fleet.send("edge-a", logs("again")), async {
        let ticket = self::ticket(&mut node).await;
        dial_back(server, ticket).await;
    });
    assert!(text(response.unwrap()).await.ends_with("again"));
}

#[tokio::test]
async fn a_node_that_does_not_come_is_poked_again_and_then_given_up() {
    let world = World::start().await;
    let server = serve(&world.fleet).await;
    assert!(matches!(
        world.fleet.send("nobody", logs("")).await,
        Err(FleetLinkError::Unknown { .. })
    ));
    let mut node = world.join("edge-a").await;
    node.beat().await;
    let pokes = async {
        let first = ticket(&mut node).await;
        assert_eq!(ticket(&mut node).await, first, "the same dial, repeated");
        assert_eq!(dial_back(server, first ^ 1).await, StatusCode::FORBIDDEN);
    };
    let (result, ()) = tokio::join!(world.fleet.send("edge-a", logs("")), pokes);
    let error = result.err().unwrap().to_string();
    assert!(error.contains("did not dial back within 10 s; it was last heard"), "{error}");
}
