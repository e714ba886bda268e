//! The values of `server.yaml` that YAML has no type for: sizes and addresses. Knows no keys.

use std::net::SocketAddr;

use muster_proto::{endpoint::Endpoint, threshold::Amount};

/// `512MiB`, `10GB`: one whole number with a unit.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(Amount::Bytes(bytes)) => Ok(bytes),
        _ => Err(format!(
            "`{}` is not a size; write it like 512MiB or 10GiB",
            shown(text)
        )),
    }
}

pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "`{}` is not an address to listen on; write it like 0.0.0.0:8443 or [::]:8443",
            shown(text)
        )
    })
}

/// `host:port`, as an agent is told it.
pub fn check_endpoint(text: &str) -> Result<(), String> {
    match text.parse::<Endpoint>() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("`{}` is no address of a controller: {error}", shown(text))),
    }
}

/// As much of an input as belongs into a message.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_with_a_unit() {
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes("10GB"), Ok(10_000_000_000));
        assert_eq!(bytes("1.5GiB"), Ok(3 << 29));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "10",
            "10G",
            "10gib",
            "GiB",
            "1GiB2MiB",
            "-1GiB",
            "99999999999TiB",
            "1GiB☃",
        ] {
            assert!(bytes(text).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        for good in [
            "controller.example.com:8443",
            "192.0.2.1:1",
            "[2001:db8::1]:8443",
            "localhost:65535",
        ] {
            assert_eq!(check_endpoint(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "host",
            "host:",
            ":8443",
            "host:0",
            "host:65536",
            "host:+1",
            "2001:db8::1:8443",
            "[::1",
            "a b:1",
            "https://h:1",
            "-h:1",
        ] {
            assert!(check_endpoint(bad).is_err(), "{bad} was taken");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,40}") {
            let _ = bytes(&text);
            let _ = listen_address(&text);
            let _ = check_endpoint(&text);
        }
    }
}
