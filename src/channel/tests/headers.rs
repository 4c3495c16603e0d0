//! What a call says besides its message.

use http::HeaderMap;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{net::RawPeer, *};

/// The headers of the calls that reach `a`, each of which it refuses.
fn heard(bench: &Bench) -> (mpsc::UnboundedReceiver<HeaderMap>, JoinHandle<()>) {
    let mut peer = RawPeer::listen(&bench.net, "a:1");
    let (told, headers) = mpsc::unbounded_channel();
    let serving = tokio::spawn(async move {
        let mut connection = peer.accept().await;
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let _ = told.send(request.headers().clone());
            let _ = scripted::unavailable(&mut respond);
        }
    });
    (headers, serving)
}

#[tokio::test(start_paused = true)]
async fn a_call_says_what_client_it_comes_from_unless_its_caller_does() {
    let bench = Bench::new(&["a"]);
    let (mut headers, serving) = heard(&bench);
    bench.ask(net::WHO).await.expect_err("as told");
    let agent = headers.recv().await.expect("said")["user-agent"].clone();
    assert!(agent.to_str().expect("text").starts_with("grpc-rust-meshwork/"), "{agent:?}");

    let mut request = Request::new(String::new());
    request.metadata_mut().insert("user-agent", "mine/1".parse().expect("a value"));
    bench.send(net::WHO, request).await.expect_err("as told");
    assert_eq!(headers.recv().await.expect("said")["user-agent"], "mine/1");
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn a_call_never_speaks_for_the_end_user_of_the_call_that_it_serves() {
    let bench = Bench::new(&["a"]);
    let (mut headers, serving) = heard(&bench);
    let mut request = Request::new(String::new());
    // As a handler does that passes on all that it got.
    for name in ["meshwork-subject", "x-tenant"] {
        request.metadata_mut().append(name, "ada".parse().expect("a value"));
        request.metadata_mut().append(name, "eve".parse().expect("a value"));
    }
    bench.send(net::WHO, request).await.expect_err("as told");
    let headers = headers.recv().await.expect("said");
    assert!(headers.contains_key("x-tenant") && !headers.contains_key("meshwork-subject"), "{headers:?}");
    serving.abort();
}
