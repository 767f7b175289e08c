//! A web server on loopback; the port is the only line that it prints.

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

async fn hello() -> impl IntoResponse {
    tokio::time::sleep(Duration::from_millis(2)).await;
    ([("x-handler", "old".to_string()), ("x-stock", stock::describe("tea"))], "hello\n")
}

async fn stamp(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert("x-stamp", HeaderValue::from_static("plain"));
    response
}

async fn serve() {
    let app = Router::new().route("/hello.txt", get(hello)).layer(from_fn(stamp));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    axum::serve(listener, app).await.unwrap();
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(serve());
}
