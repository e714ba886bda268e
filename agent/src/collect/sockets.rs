//! The network stack as a whole: `node_sockstat_*`, `node_udp_queues`, `node_arp_entries` and `node_nf_conntrack_*`. What
//! the kernel lacks is left out.

use std::collections::BTreeMap;

use super::families::Families;
use super::source::{self, Error};

pub(super) fn collect(families: &mut Families) -> Result<(), Error> {
    let page_size = procfs::page_size();
    for file in ["/proc/net/sockstat", "/proc/net/sockstat6"] {
        if let Some(text) = source::read_if_there(file) {
            add_sockstat(file, &text, page_size, families)?;
        }
    }
    for (file, ip) in [("/proc/net/udp", "v4"), ("/proc/net/udp6", "v6")] {
        if let Some(text) = source::read_if_there(file) {
            add_udp_queues(&text, ip, families);
        }
    }
    if let Some(text) = source::read_if_there("/proc/net/arp") {
        add_arp(&text, families);
    }
    for (file, name) in [
        (
            "/proc/sys/net/netfilter/nf_conntrack_count",
            "node_nf_conntrack_entries",
        ),
        (
            "/proc/sys/net/netfilter/nf_conntrack_max",
            "node_nf_conntrack_entries_limit",
        ),
    ] {
        if let Some(text) = source::read_if_there(file) {
            families.gauge(name, &[], source::number::<u64>(file, text.trim())? as f64);
        }
    }
    Ok(())
}

/// Lines like "TCP: inuse 5 mem 1", where `mem` is in pages.
fn add_sockstat(file: &'static str, text: &str, page_size: u64, families: &mut Families) -> Result<(), Error> {
    for line in text.lines() {
        let Some((protocol, pairs)) = line.split_once(':') else {
            continue;
        };
        let mut words = pairs.split_ascii_whitespace();
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            let value = source::number::<u64>(file, value)? as f64;
            families.gauge(&format!("node_sockstat_{protocol}_{name}"), &[], value);
            if name == "mem" {
                families.gauge(
                    &format!("node_sockstat_{protocol}_mem_bytes"),
                    &[],
                    value * page_size as f64,
                );
            }
        }
    }
    Ok(())
}

/// The fifth column is what all sockets have queued, "tx:rx" in hexadecimal.
fn add_udp_queues(text: &str, ip: &str, families: &mut Families) {
    let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
    let queues = text.lines().skip(1).filter_map(|line| {
        let (tx, rx) = line.split_ascii_whitespace().nth(4)?.split_once(':')?;
        Some((hexadecimal(tx)?, hexadecimal(rx)?))
    });
    let (tx, rx) = queues.fold((0, 0), |sum: (u64, u64), queue| (sum.0 + queue.0, sum.1 + queue.1));
    families.gauge("node_udp_queues", &[("ip", ip), ("queue", "tx")], tx as f64);
    families.gauge("node_udp_queues", &[("ip", ip), ("queue", "rx")], rx as f64);
}

/// The sixth column is the device.
fn add_arp(text: &str, families: &mut Families) {
    let mut entries = BTreeMap::new();
    for device in text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_ascii_whitespace().nth(5))
    {
        *entries.entry(device).or_insert(0_u32) += 1;
    }
    for (device, count) in entries {
        families.gauge("node_arp_entries", &[("device", device)], count.into());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::samples;
    use super::*;

    #[test]
    fn sockets_are_counted_by_protocol_and_their_memory_is_in_bytes_too() {
        let mut families = Families::default();
        let text = "sockets: used 229\nTCP: inuse 4 orphan 0 tw 4 alloc 17 mem 3\nUDP: inuse 0 mem 0\n";
        add_sockstat("sockstat", text, 4096, &mut families).unwrap();
        let samples = samples(&families);
        assert_eq!(samples["node_sockstat_sockets_used"], 229.0);
        assert_eq!(samples["node_sockstat_TCP_inuse"], 4.0);
        assert_eq!(samples["node_sockstat_TCP_mem"], 3.0);
        assert_eq!(samples["node_sockstat_TCP_mem_bytes"], 12288.0);
        assert_eq!(samples["node_sockstat_UDP_mem_bytes"], 0.0);
        assert!(add_sockstat("sockstat", "TCP: inuse x", 4096, &mut families).is_err());
    }

    #[test]
    fn udp_queues_are_summed_up() {
        let mut families = Families::default();
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n\
            1: 0100007F:0035 00000000:0000 07 00000010:00000001 00:00000000 00000000 0\n\
            2: 0100007F:0036 00000000:0000 07 00000000:0000000F 00:00000000 00000000 0\n";
        add_udp_queues(text, "v4", &mut families);
        let samples = samples(&families);
        assert_eq!(samples["node_udp_queues{ip=v4,queue=tx}"], 16.0);
        assert_eq!(samples["node_udp_queues{ip=v4,queue=rx}"], 16.0);
    }

    #[test]
    fn arp_entries_are_counted_by_device() {
        let mut families = Families::default();
        let text = "IP address       HW type     Flags       HW address            Mask     Device\n\
            192.168.1.1 0x1 0x2 aa:bb:cc:dd:ee:01 * eth0\n192.168.1.2 0x1 0x2 aa:bb:cc:dd:ee:02 * eth0\n\
            10.0.0.1 0x1 0x2 aa:bb:cc:dd:ee:03 * eth1\n";
        add_arp(text, &mut families);
        let samples = samples(&families);
        assert_eq!(samples["node_arp_entries{device=eth0}"], 2.0);
        assert_eq!(samples["node_arp_entries{device=eth1}"], 1.0);
    }
}
