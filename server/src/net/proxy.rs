//! The PROXY protocol, versions 1 and 2, as haproxy's specification has it: how a proxy in front says whose connection it
//! passes on. Reads the header and not a byte more; whom to believe is not decided here.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Of a line of version 1, with its end.
const MAX_LINE: usize = 107;
/// Of the addresses and all else that version 2 may add.
const MAX_REST: usize = 4 << 10;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("failed to read the header of the PROXY protocol")]
    Read(#[from] io::Error),
    #[error("no header of the PROXY protocol: {0}")]
    Malformed(&'static str),
}

/// Whose connection it is. None: the proxy's own, such as a check of its, or one it cannot tell of.
pub(super) async fn read(io: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, Error> {
    // No header is shorter.
    let mut start = [0; SIGNATURE.len()];
    io.read_exact(&mut start).await?;
    if start == SIGNATURE {
        let mut head = [0; 4];
        io.read_exact(&mut head).await?;
        let [version, family, high, low] = head;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > MAX_REST {
            return Err(Error::Malformed("it is longer than 4 KiB"));
        }
        let mut rest = vec![0; length];
        io.read_exact(&mut rest).await?;
        return binary(version, family, &rest).map_err(Error::Malformed);
    }
    if !start.starts_with(b"PROXY ") {
        return Err(Error::Malformed("the connection begins with something else"));
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_LINE {
            return Err(Error::Malformed("its line is longer than 107 bytes"));
        }
        line.push(io.read_u8().await?);
    }
    text(&line).map_err(Error::Malformed)
}

/// Version 1: `PROXY TCP4 192.0.2.7 198.51.100.1 51234 8443`.
fn text(line: &[u8]) -> Result<Option<SocketAddr>, &'static str> {
    let line = std::str::from_utf8(line).map_err(|_| "its line is no text")?;
    let line = line.strip_suffix("\r\n").ok_or("its line has no end")?;
    let mut words = line.split(' ');
    if words.next() != Some("PROXY") {
        return Err("its line does not begin with PROXY");
    }
    let (source, port) = match words.next() {
        Some("UNKNOWN") => return Ok(None),
        Some("TCP4") => addresses::<Ipv4Addr>(&mut words)?,
        Some("TCP6") => addresses::<Ipv6Addr>(&mut words)?,
        _ => return Err("it is of a protocol that is not TCP"),
    };
    if words.next().is_some() {
        return Err("its line goes on behind the ports");
    }
    Ok(Some(SocketAddr::new(source, port)))
}

/// Of the source; those of the destination have to be right, too.
fn addresses<'a, A>(words: &mut impl Iterator<Item = &'a str>) -> Result<(IpAddr, u16), &'static str>
where
    A: FromStr + Into<IpAddr>,
{
    let mut address = || words.next().and_then(|word| word.parse::<A>().ok());
    let (source, _destination) = (address(), address());
    let source = source
        .filter(|_| _destination.is_some())
        .ok_or("its addresses are none")?;
    let mut port = || {
        let word = words.next()?;
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
        word.parse::<u16>().ok().filter(|_| is_number)
    };
    match (port(), port()) {
        (Some(port), Some(_)) => Ok((source.into(), port)),
        _ => Err("its ports are none"),
    }
}

/// Version 2. What follows the addresses is for others.
fn binary(version: u8, family: u8, rest: &[u8]) -> Result<Option<SocketAddr>, &'static str> {
    match version {
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err("it is of a version or a command that is not known"),
    }
    let port = |at: usize| rest.get(at..at + 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
    let source = match family {
        // TCP over IPv4: both addresses, both ports.
        0x11 => {
            let source = rest.first_chunk::<4>().map(|source| IpAddr::from(*source));
            source.zip(port(8)).filter(|_| rest.len() >= 12)
        }
        0x21 => {
            let source = rest.first_chunk::<16>().map(|source| IpAddr::from(*source));
            source.zip(port(32)).filter(|_| rest.len() >= 36)
        }
        // Unspecified, or a Unix socket of the proxy's machine.
        0x00 | 0x31 => return Ok(None),
        _ => return Err("it is of a protocol that is not TCP"),
    };
    let (source, port) = source.ok_or("its addresses are cut short")?;
    Ok(Some(SocketAddr::new(source, port)))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    /// Bytes that are all there at once: what was read, and what is left for others.
    fn parse(mut bytes: &[u8]) -> (Result<Option<SocketAddr>, Error>, &[u8]) {
        let read = read(&mut bytes).now_or_never().expect("nothing to wait for");
        (read, bytes)
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("a length").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[test]
    fn the_examples_of_the_specification_are_read_and_nothing_behind_them() {
        for (header, expected) in [
            (
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
                Some("255.255.255.255:65535"),
            ),
            (
                "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
                Some("192.168.0.1:56324"),
            ),
            (
                "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
                Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
            ),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
        ] {
            let bytes = [header.as_bytes(), b"\x16\x03\x01hello"].concat();
            let (read, left) = parse(&bytes);
            let expected = expected.map(|text| text.parse::<SocketAddr>().expect("an address"));
            assert_eq!(read.expect(header), expected, "{header}");
            assert_eq!(left, b"\x16\x03\x01hello");
        }
    }

    #[test]
    fn version_2_is_read_with_its_extensions_skipped_and_the_proxys_own_connections_told_apart() {
        let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0xc8, 0x22, 0x20, 0xfb];
        let with_tlv = [&v4[..], &[0x04, 0, 2, 0, 0]].concat();
        let mut v6 = [0; 36];
        v6[0] = 0x20;
        v6[15] = 9;
        v6[33] = 80;
        for (header, expected) in [
            (v2(0x21, 0x11, &v4), Some("192.0.2.7:51234")),
            (v2(0x21, 0x11, &with_tlv), Some("192.0.2.7:51234")),
            (v2(0x21, 0x21, &v6), Some("[2000::9]:80")),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, &v4), None),
            (v2(0x21, 0x00, &[1, 2, 3]), None),
        ] {
            let bytes = [&header[..], b"rest"].concat();
            let (read, left) = parse(&bytes);
            assert_eq!(
                read.expect("a header"),
                expected.map(|text| text.parse().expect("an address"))
            );
            assert_eq!(left, b"rest");
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        let lines = [
            "GET / HTTP/1.1\r\n\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 51234\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 051234 1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +512 1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 1 1\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 1\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 1 1\r\n",
            "PROXY TCP4 192.0.2.07 198.51.100.1 1 1\r\n",
            "PROXY  TCP4 192.0.2.7 198.51.100.1 1 1\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 1 1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 1\n plus more that is no end of a line",
            "proxy TCP4 192.0.2.7 198.51.100.1 1 1\r\n",
            &long,
        ];
        let binary = [
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x12, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x11, &[0; 4_097]),
            SIGNATURE.to_vec(),
        ];
        for bytes in lines.map(|line| line.as_bytes().to_vec()).into_iter().chain(binary) {
            let (read, _) = parse(&bytes);
            assert!(read.is_err(), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    proptest! {
        #[test]
        fn every_source_comes_through_in_both_versions(ip in any::<IpAddr>(), port in any::<u16>(), tail in any::<[u8; 3]>()) {
            let (word, family, destination) = match ip {
                IpAddr::V4(_) => ("TCP4", 0x11, IpAddr::from(Ipv4Addr::LOCALHOST)),
                IpAddr::V6(_) => ("TCP6", 0x21, IpAddr::from(Ipv6Addr::LOCALHOST)),
            };
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            let line = format!("PROXY {word} {ip} {destination} {port} 1\r\n");
            let rest = [&octets(ip)[..], &octets(destination), &port.to_be_bytes(), &[0, 1]].concat();
            for header in [line.into_bytes(), v2(0x21, family, &rest)] {
                let bytes = [&header[..], &tail].concat();
                let (read, left) = parse(&bytes);
                prop_assert_eq!(read.expect("a header"), Some(SocketAddr::new(ip, port)));
                prop_assert_eq!(left, &tail[..]);
            }
        }

        /// Neither noise nor what begins well makes it panic, read on without end, or believe what is cut short.
        #[test]
        fn no_bytes_do_harm(
            start in prop_oneof![Just(Vec::new()), Just(SIGNATURE.to_vec()), Just(b"PROXY TCP4 ".to_vec()), Just(v2(0x21, 0x11, &[]))],
            noise in proptest::collection::vec(any::<u8>(), 0..5_000),
        ) {
            let bytes = [start, noise].concat();
            let (read, left) = parse(&bytes);
            prop_assert!(bytes.len() - left.len() <= 16 + MAX_REST);
            if read.is_ok() {
                let header = bytes.len() - left.len();
                prop_assert!(parse(&bytes[..header - 1]).0.is_err());
            }
        }
    }
}
