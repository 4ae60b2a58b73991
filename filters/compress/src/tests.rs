//! The filter in the simulated host.

use meshgate_sdk::testing::{Done, Proxy, Request, Response};

use super::Compress;

fn asking() -> Request {
    Request::get("/").header("accept-encoding", "gzip")
}

fn page() -> Response {
    Response::new(200)
        .header("content-type", "text/html")
        .header("content-length", "2000")
        .body("x".repeat(2000))
}

fn send(configuration: &str, request: Request, response: Response) -> Done {
    let mut proxy = Proxy::new::<Compress>(configuration);
    proxy.endpoint(move |_| response.clone());
    proxy.send(request)
}

fn vary(done: &Done) -> Vec<String> {
    let fields = done.response().head().iter().filter(|(name, _)| name == "vary");
    fields.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
}

#[test]
fn what_is_worth_it_is_encoded_for_who_takes_it() {
    let done = send("{}", asking(), page());
    assert_eq!(
        (done.encoding(), vary(&done)),
        (Some(("gzip".to_owned(), 6)), vec!["accept-encoding".to_owned()])
    );
    let done = send(r#"{"level": 1}"#, asking(), page().header("vary", "Accept-Encoding, origin"));
    assert_eq!((done.encoding(), vary(&done).len()), (Some(("gzip".to_owned(), 1)), 1));
    // Who does not take it gets it as it is, and caches hear that others do not.
    let done = send("{}", Request::get("/"), page());
    assert_eq!((done.encoding(), vary(&done)), (None, vec!["accept-encoding".to_owned()]));
    let unknown_length = Response::new(200).header("content-type", "text/html").body("x");
    assert!(send("{}", asking(), unknown_length).encoding().is_some());
}

#[test]
fn what_must_not_be_touched_is_left_alone() {
    let typed = |status| Response::new(status).header("content-type", "text/html").body("x".repeat(2000));
    for response in [
        page().header("content-encoding", "br"),
        page().header("cache-control", "max-age=5, No-Transform"),
        page().header("content-range", "bytes 0-1/2"),
        typed(206),
        typed(204),
        typed(304),
        Response::new(200).body("x".repeat(2000)),
        Response::new(200).header("content-type", "image/png").body("x".repeat(2000)),
        Response::new(200)
            .header("content-type", "text/html")
            .header("content-length", "1023")
            .body("x".repeat(1023)),
    ] {
        let done = send("{}", asking(), response.clone());
        assert_eq!((done.encoding(), vary(&done)), (None, Vec::new()), "{response:?}");
    }
}

#[test]
fn types_and_sizes_are_configured() {
    let png = || {
        Response::new(200).header("content-type", "image/png").header("content-length", "9").body("123456789")
    };
    let configuration = r#"{"types": ["image/*"], "min_size": 9}"#;
    assert!(send(configuration, asking(), png()).encoding().is_some());
    assert!(send(configuration, asking(), page()).encoding().is_none());
    for (config, said) in [
        (r#"{"types": ["text/html", "html"]}"#, "types/1: \"html\" is no type"),
        (r#"{"level": 10}"#, "level: a level is from 1 to 9"),
    ] {
        let refusal = Proxy::refusal::<Compress>(config);
        assert!(refusal.contains(said), "{refusal}");
    }
}
