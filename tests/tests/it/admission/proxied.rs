//! Behind a proxy that speaks the PROXY protocol, as operators see it.

use muster_certs::identity_file::IdentityFile;
use muster_proto::v1::{ConnectRequest, Hello, connect_request::Frame, link_service_client::LinkServiceClient};
use muster_tests::{Controller, dial, peer, peer::Peer, poll, poll::SECOND};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;

#[test]
fn an_agent_behind_a_proxy_is_seen_with_its_own_address() {
    // Enrolled while there was no proxy.
    let mut controller = Controller::start();
    let token = controller.token(&[]).secret;
    let machine = Peer::new("proxied");
    let enrolled = machine.enroll(&controller, &token).expect("enrolled");
    let identity = machine.identity(enrolled.certificates);
    controller.stop();
    let config = std::fs::read_to_string(controller.config()).expect("the config");
    let config = format!("{config}\nagent_proxy_protocol: [127.0.0.1]\n");
    std::fs::write(controller.config(), config).expect("the config is written");
    controller.run();

    peer::Link::connect(&controller, &identity).expect_err("from there a header is demanded");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let v1 = b"PROXY TCP4 192.0.2.7 127.0.0.1 51234 8443\r\n".to_vec();
    let v2 = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24"[..],
        &"2001:db8::9"
            .parse::<std::net::Ipv6Addr>()
            .expect("an address")
            .octets(),
        &[0; 16],
        &4711_u16.to_be_bytes(),
        &8443_u16.to_be_bytes(),
    ]
    .concat();
    for (header, remote) in [(v1, "192.0.2.7:51234"), (v2, "[2001:db8::9]:4711")] {
        let _link = runtime.block_on(link_behind(&controller, &identity, &header));
        let seen = || match controller.ctl().json(&["agent", "get", "proxied"])["connection"]["remoteAddress"].clone() {
            seen if seen == remote => Ok(()),
            seen => Err(seen.to_string()),
        };
        poll::until(remote, 20 * SECOND, seen);
    }
}

/// Ends with what it returns.
async fn link_behind(controller: &Controller, identity: &IdentityFile, header: &[u8]) -> impl Sized {
    let mut tcp = TcpStream::connect(controller.endpoint()).await.expect("a connection");
    tcp.write_all(header).await.expect("the header is sent");
    let channel = dial::channel_over(controller, tcp, Some(identity)).await.expect("TLS");
    let (requests, outbound) = mpsc::channel(4);
    let hello = Hello {
        agent_id: peer::agent_id(identity),
        agent_version: "1".to_owned(),
        protocol_version: 1,
        ..Hello::default()
    };
    let frame = Some(Frame::Hello(hello));
    requests.send(ConnectRequest { frame }).await.expect("there is room");
    let call = LinkServiceClient::new(channel)
        .connect(ReceiverStream::new(outbound))
        .await;
    let mut frames = call.expect("a link").into_inner();
    frames.message().await.expect("a welcome");
    (requests, frames)
}
