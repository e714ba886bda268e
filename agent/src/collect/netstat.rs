//! `node_netstat_*` from /proc/net/netstat, snmp and snmp6, the fields that node_exporter takes by default, and
//! `node_softnet_*` from /proc/net/softnet_stat.

use super::families::Families;
use super::source::{self, Error};

const SOFTNET: &str = "/proc/net/softnet_stat";

/// Of these protocols, these fields; names that end in `*` stand for all that start so.
const FIELDS: [(&str, &[&str]); 9] = [
    ("Ip", &["Forwarding"]),
    ("Ip6", &["InOctets", "OutOctets"]),
    ("IpExt", &["InOctets", "OutOctets"]),
    ("Icmp", &["InMsgs", "OutMsgs"]),
    ("Icmp6", &["InMsgs", "OutMsgs"]),
    (
        "TcpExt",
        &[
            "Listen*",
            "Syncookies*",
            "TCPSynRetrans",
            "TCPTimeouts",
            "TCPOFOQueue",
            "TCPRcvQDrop",
        ],
    ),
    (
        "Tcp",
        &[
            "ActiveOpens",
            "InSegs",
            "OutSegs",
            "OutRsts",
            "PassiveOpens",
            "RetransSegs",
            "CurrEstab",
        ],
    ),
    (
        "Udp",
        &["InDatagrams", "OutDatagrams", "NoPorts", "RcvbufErrors", "SndbufErrors"],
    ),
    (
        "Udp6",
        &["InDatagrams", "OutDatagrams", "NoPorts", "RcvbufErrors", "SndbufErrors"],
    ),
];
/// Of every protocol.
const ERRORS: [&str; 2] = ["InErrors", "InErrs"];
/// The fields that are no sums.
const GAUGES: [&str; 2] = ["Ip_Forwarding", "Tcp_CurrEstab"];

pub(super) fn collect(families: &mut Families) -> Result<(), Error> {
    for file in ["/proc/net/netstat", "/proc/net/snmp"] {
        add_table(file, &source::read(file)?, families)?;
    }
    // Neither is there on every kernel.
    if let Some(text) = source::read_if_there("/proc/net/snmp6") {
        add_snmp6(&text, families);
    }
    source::read_if_there(SOFTNET).map_or(Ok(()), |text| add_softnet(&text, families))
}

/// Pairs of lines: "Tcp: name name" and "Tcp: value value".
fn add_table(file: &'static str, text: &str, families: &mut Families) -> Result<(), Error> {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let (protocol, names) = source::expect(file, "a colon", names.split_once(':'))?;
        let values = source::expect(file, "a line of values", values.strip_prefix(protocol))?;
        let values = values.trim_start_matches(':').split_ascii_whitespace();
        for (name, value) in names.split_ascii_whitespace().zip(values) {
            if is_wanted(protocol, name) {
                // -1 is a value of some.
                add(protocol, name, source::number::<f64>(file, value)?, families);
            }
        }
    }
    Ok(())
}

/// "Ip6InOctets   5".
fn add_snmp6(text: &str, families: &mut Families) {
    for line in text.lines() {
        let Some((name, value)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let Some((protocol, name)) = name.find('6').map(|at| name.split_at(at + 1)) else {
            continue;
        };
        if let (true, Ok(value)) = (is_wanted(protocol, name), value.trim().parse::<u64>()) {
            add(protocol, name, value as f64, families);
        }
    }
}

fn is_wanted(protocol: &str, name: &str) -> bool {
    let fits = |pattern: &&str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *pattern,
    };
    ERRORS.contains(&name)
        || FIELDS
            .iter()
            .any(|(known, fields)| *known == protocol && fields.iter().any(fits))
}

fn add(protocol: &str, name: &str, value: f64, families: &mut Families) {
    let field = format!("{protocol}_{name}");
    let metric = format!("node_netstat_{field}");
    if GAUGES.contains(&field.as_str()) {
        families.gauge(&metric, &[], value);
    } else {
        families.counter(&metric, &[], value);
    }
}

/// A line for each CPU, in hexadecimal: packets processed, dropped, and how often it ran out of time.
fn add_softnet(text: &str, families: &mut Families) -> Result<(), Error> {
    for (cpu, line) in text.lines().enumerate() {
        let cpu = cpu.to_string();
        let mut columns = line.split_ascii_whitespace();
        for name in ["processed", "dropped", "times_squeezed"] {
            let column = source::expect(SOFTNET, "a column", columns.next())?;
            let value = source::expect(SOFTNET, "a number", u64::from_str_radix(column, 16).ok())?;
            families.counter(&format!("node_softnet_{name}_total"), &[("cpu", &cpu)], value as f64);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::samples;
    use super::*;

    #[test]
    fn names_and_values_of_a_table_belong_together() {
        let mut families = Families::default();
        let text = "Ip: Forwarding DefaultTTL InReceives\nIp: 2 64 18588\n\
            Tcp: RtoMax MaxConn ActiveOpens CurrEstab InErrs\nTcp: 120000 -1 7 8 9\n\
            TcpExt: SyncookiesSent TW ListenDrops\nTcpExt: 1 2 3\n";
        add_table("snmp", text, &mut families).unwrap();
        let expected = [
            ("node_netstat_Ip_Forwarding", 2.0),
            ("node_netstat_TcpExt_ListenDrops", 3.0),
            ("node_netstat_TcpExt_SyncookiesSent", 1.0),
            ("node_netstat_Tcp_ActiveOpens", 7.0),
            ("node_netstat_Tcp_CurrEstab", 8.0),
            ("node_netstat_Tcp_InErrs", 9.0),
        ];
        let samples = samples(&families);
        assert_eq!(
            samples
                .iter()
                .map(|(name, value)| (name.as_str(), *value))
                .collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn a_table_of_another_shape_is_an_error() {
        assert!(add_table("snmp", "Ip: Forwarding\nTcp: 1\n", &mut Families::default()).is_err());
        assert!(add_table("snmp", "Ip: Forwarding\nIp: x\n", &mut Families::default()).is_err());
    }

    #[test]
    fn the_fields_of_ipv6_are_told_by_their_prefix() {
        let mut families = Families::default();
        add_snmp6(
            "Ip6InOctets    \t5\nIp6InReceives 1\nUdp6InErrors 2\nUdpLite6InErrors 3\nodd\n",
            &mut families,
        );
        let names: Vec<String> = samples(&families).into_keys().collect();
        let expected = ["Ip6_InOctets", "Udp6_InErrors", "UdpLite6_InErrors"];
        assert_eq!(names, expected.map(|name| format!("node_netstat_{name}")));
    }

    #[test]
    fn softnet_counts_by_cpu_in_hexadecimal() {
        let mut families = Families::default();
        add_softnet(
            "0000105e 00000001 0000000a 0\n00003850 00000000 00000000 0\n",
            &mut families,
        )
        .unwrap();
        let samples = samples(&families);
        assert_eq!(samples["node_softnet_processed_total{cpu=0}"], 4190.0);
        assert_eq!(samples["node_softnet_dropped_total{cpu=0}"], 1.0);
        assert_eq!(samples["node_softnet_times_squeezed_total{cpu=0}"], 10.0);
        assert_eq!(samples["node_softnet_processed_total{cpu=1}"], 14416.0);
    }
}
