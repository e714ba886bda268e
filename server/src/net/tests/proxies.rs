//! Connections that a proxy passes on.

use super::*;

const SOURCE: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 51234 8443\r\n";

/// Tells a caller where it comes from.
fn told() -> Router {
    Router::new().route(
        "/",
        get(|Extension(peer): Extension<Peer>| async move { peer.addr.to_string() }),
    )
}

/// A connection that begins with these bytes.
async fn beginning(rig: &Rig, bytes: &[u8]) -> TcpStream {
    let mut tcp = rig.tcp().await;
    tcp.write_all(bytes).await.unwrap();
    tcp
}

async fn source_by(rig: &Rig, header: &[u8]) -> String {
    let tls = rig.tls_over(beginning(rig, header).await, None, b"h2").await.unwrap();
    let mut client = client(&rig.tasks, tls).await;
    let answer = ask(&mut client, "/").await.unwrap();
    text(answer).await
}

#[tokio::test]
async fn a_listed_proxy_says_whose_connection_it_is() {
    let rig = Rig::start_behind(&["127.0.0.0/8"], quick(), told());
    assert_eq!(source_by(&rig, SOURCE.as_bytes()).await, "192.0.2.7:51234");
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xc0\0\x02\x08\xc6\x33\x64\x01\xc8\x22\x20\xfb\x04\0\x01\0";
    assert_eq!(source_by(&rig, v2).await, "192.0.2.8:51234");
    let local = source_by(&rig, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0").await;
    assert!(local.starts_with("127.0.0.1:"), "{local}");
    rig.stop().await;
}

#[tokio::test]
async fn a_listed_proxy_that_says_nothing_is_not_served_and_one_that_is_not_listed_is_not_believed() {
    let rig = Rig::start_behind(&["127.0.0.0/8"], quick(), told());
    rig.tls_over(rig.tcp().await, None, b"h2").await.unwrap_err();
    let counted = r#"muster_controller_handshake_failures_total{listener="test",reason="proxy_header"} 1"#;
    rig.counted(counted).await;
    rig.stop().await;

    let rig = Rig::start_behind(&["10.0.0.0/8"], quick(), told());
    let tcp = beginning(&rig, SOURCE.as_bytes()).await;
    rig.tls_over(tcp, None, b"h2").await.unwrap_err();
    rig.counted(r#"muster_controller_handshake_failures_total{listener="test",reason="not_tls"} 1"#)
        .await;
    assert!(source_by(&rig, b"").await.starts_with("127.0.0.1:"));
    rig.stop().await;
}

#[tokio::test]
async fn the_limit_of_a_source_is_that_of_whoever_is_behind_the_proxy() {
    let limits = Limits {
        max_per_source: 1,
        ..quick()
    };
    let rig = Rig::start_behind(&["127.0.0.1"], limits, told());
    let tls = rig
        .tls_over(beginning(&rig, SOURCE.as_bytes()).await, None, b"h2")
        .await
        .unwrap();
    rig.tls_over(beginning(&rig, SOURCE.as_bytes()).await, None, b"h2")
        .await
        .unwrap_err();
    rig.counted(r#"muster_controller_handshake_failures_total{listener="test",reason="per_source"} 1"#)
        .await;
    let other = b"PROXY TCP4 192.0.2.9 198.51.100.1 1 8443\r\n";
    assert_eq!(source_by(&rig, other).await, "192.0.2.9:1");
    drop(tls);
    rig.stop().await;
}

#[tokio::test]
async fn a_header_that_never_ends_is_a_handshake_that_takes_too_long() {
    let limits = Limits {
        handshake_timeout: Duration::from_millis(100),
        ..quick()
    };
    let rig = Rig::start_behind(&["127.0.0.1"], limits, told());
    let mut tcp = beginning(&rig, b"PROXY TCP4 192.0.").await;
    assert_eq!(tcp.read(&mut [0; 1]).await.unwrap_or(0), 0, "it is closed");
    rig.counted(r#"muster_controller_handshake_failures_total{listener="test",reason="timeout"} 1"#)
        .await;
    rig.stop().await;
}
