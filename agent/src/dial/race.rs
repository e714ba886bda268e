//! Which of the addresses of a host a connection is made to: RFC 8305 (happy eyeballs). Addresses of both families take
//! turns, each attempt starts a quarter of a second after the one before or as soon as that has failed, and the first that
//! connects wins. Knows no socket: how to connect is given.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::sleep;

/// Between the starts of two attempts: the "Connection Attempt Delay" that RFC 8305 recommends.
const STAGGER: Duration = Duration::from_millis(250);

/// A name with more addresses is tried at so many.
const MAX_ADDRESSES: usize = 16;

/// The families take turns, the one that the system prefers begins; within a family the order stays.
pub(super) fn interleave(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut unique: Vec<SocketAddr> = Vec::new();
    for address in addresses {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    let first_is_v6 = unique.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = unique.into_iter().partition(|it| it.is_ipv6() == first_is_v6);
    let mut second = second.into_iter();
    let mut order = Vec::new();
    for address in first {
        order.push(address);
        order.extend(second.next());
    }
    order.extend(second);
    order.truncate(MAX_ADDRESSES);
    order
}

/// What `connect` gives for the first address that it works with; the attempts that are under way then are dropped. When none
/// works, the error of the first address that failed, with the address.
pub(super) async fn race<T, F>(addresses: Vec<SocketAddr>, connect: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    let mut failed: Option<io::Error> = None;
    let attempt = |address: SocketAddr| {
        let connecting = connect(address);
        async move {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
            connecting.await.map_err(named)
        }
    };
    loop {
        match waiting.next() {
            Some(address) => running.push(attempt(address)),
            None if running.is_empty() => {
                let nothing = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                return Err(failed.unwrap_or_else(nothing));
            }
            None => {}
        }
        let is_last = waiting.len() == 0;
        tokio::select! {
            Some(outcome) = running.next() => match outcome {
                Ok(connected) => return Ok(connected),
                Err(error) => failed = failed.or(Some(error)),
            },
            () = sleep(STAGGER), if !is_last => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::*;

    fn v4(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 8443))
    }

    fn v6(last: u16) -> SocketAddr {
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 8443))
    }

    /// Addresses connect after so many milliseconds, or fail, or never say anything.
    #[derive(Clone, Copy)]
    enum Way {
        Works(u64),
        Fails(u64),
        Silent,
    }

    /// Who has won after how many milliseconds, and when which attempt began.
    async fn run(ways: &[(SocketAddr, Way)]) -> (io::Result<SocketAddr>, u128, Vec<(SocketAddr, u128)>) {
        let start = Instant::now();
        let begun = RefCell::new(Vec::new());
        let outcome = race(ways.iter().map(|(address, _)| *address).collect(), |address| {
            let way = ways.iter().find(|(it, _)| *it == address).expect("an address").1;
            begun.borrow_mut().push((address, start.elapsed().as_millis()));
            async move {
                match way {
                    Way::Works(after) => {
                        sleep(Duration::from_millis(after)).await;
                        Ok(address)
                    }
                    Way::Fails(after) => {
                        sleep(Duration::from_millis(after)).await;
                        Err(io::ErrorKind::ConnectionRefused.into())
                    }
                    Way::Silent => std::future::pending().await,
                }
            }
        })
        .await;
        let took = start.elapsed().as_millis();
        (outcome, took, begun.into_inner())
    }

    #[test]
    fn families_take_turns_and_the_preferred_one_begins() {
        let order = interleave([v6(1), v6(2), v6(3), v4(1), v4(2), v6(1)]);
        assert_eq!(order, [v6(1), v4(1), v6(2), v4(2), v6(3)]);
        assert_eq!(interleave([v4(1), v6(1), v6(2)]), [v4(1), v6(1), v6(2)]);
        assert_eq!(interleave([]), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_family_that_goes_nowhere_costs_a_quarter_of_a_second() {
        let (winner, took, begun) = run(&[(v6(1), Way::Silent), (v4(1), Way::Works(10))]).await;
        assert_eq!((winner.unwrap(), took), (v4(1), 260));
        assert_eq!(begun, [(v6(1), 0), (v4(1), 250)]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_at_once_is_followed_at_once() {
        let (winner, took, begun) = run(&[(v6(1), Way::Fails(5)), (v4(1), Way::Works(10))]).await;
        assert_eq!((winner.unwrap(), took), (v4(1), 15));
        assert_eq!(begun, [(v6(1), 0), (v4(1), 5)]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_that_connects_wins_though_it_began_last() {
        let ways = [
            (v6(1), Way::Works(900)),
            (v4(1), Way::Works(700)),
            (v6(2), Way::Works(20)),
        ];
        let (winner, took, _) = run(&ways).await;
        assert_eq!((winner.unwrap(), took), (v6(2), 520));
    }

    #[tokio::test(start_paused = true)]
    async fn when_none_connects_the_first_failure_is_told_with_its_address() {
        let (outcome, took, _) = run(&[(v6(1), Way::Fails(700)), (v4(1), Way::Fails(0))]).await;
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().starts_with("192.0.2.1:8443: "), "{error}");
        assert_eq!(took, 700, "the other one was waited for");
        let (outcome, ..) = run(&[]).await;
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    proptest! {
        #[test]
        fn no_address_is_lost_or_doubled(flags in proptest::collection::vec(any::<bool>(), 0..12)) {
            let all: Vec<_> = (0u8..).zip(&flags).map(|(n, six)| if *six { v6(n.into()) } else { v4(n) }).collect();
            let mut order = interleave(all.clone());
            for six in [true, false] {
                let of = |list: &[SocketAddr]| list.iter().copied().filter(|it| it.is_ipv6() == six).collect::<Vec<_>>();
                prop_assert_eq!(of(&order), of(&all));
            }
            order.sort_unstable();
            let mut all = all;
            all.sort_unstable();
            prop_assert_eq!(order, all);
        }
    }
}
