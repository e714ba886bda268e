//! Endpoints by DNS: the SRV records of a name, asked for at the name servers of `/etc/resolv.conf`, in the order that RFC
//! 2782 wants. DNS is believed in where to go only: who is there, TLS proves.

use std::{io, time::Duration};

use domain::{
    base::{
        Name,
        iana::{Rcode, Rtype},
        message::Message,
        name,
        wire::ParseError,
    },
    rdata::Srv,
    resolv::{StubResolver, stub::conf::ResolvConf},
};
use tokio::time::timeout;

use super::MAX;
use crate::config::{Endpoint, srv::SrvName};

/// For all name servers together.
const ANSWER: Duration = Duration::from_secs(5);

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Record {
    priority: u16,
    weight: u16,
    endpoint: Endpoint,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} cannot be asked for")]
    Name(SrvName, #[source] name::FromStrError),
    #[error("no name server has answered within {} s what {name} is", ANSWER.as_secs())]
    Timeout { name: SrvName },
    #[error("failed to look up {0}")]
    Query(SrvName, #[source] io::Error),
    #[error("the name server's answer for {name} is {rcode}")]
    Refused { name: SrvName, rcode: Rcode },
    #[error("the name server's answer for {0} cannot be read")]
    Malformed(SrvName, #[source] ParseError),
}

/// In no order. None at all: the name has no such record, or says that there is no such service.
pub(super) async fn look_up(name: &SrvName) -> Result<Vec<Record>, Error> {
    ask(name, ResolvConf::default()).await
}

async fn ask(name: &SrvName, servers: ResolvConf) -> Result<Vec<Record>, Error> {
    let question: Name<Vec<u8>> = name
        .as_str()
        .parse()
        .map_err(|error| Error::Name(name.clone(), error))?;
    // Made anew for each question: the name servers of a machine change as it moves.
    let resolver = StubResolver::from_conf(servers);
    let answer = timeout(ANSWER, resolver.query((question, Rtype::SRV))).await;
    let answer = answer
        .map_err(|_| Error::Timeout { name: name.clone() })?
        .map_err(|error| Error::Query(name.clone(), error))?;
    match answer.header().rcode() {
        Rcode::NOERROR => records(&answer.into_message()).map_err(|error| Error::Malformed(name.clone(), error)),
        Rcode::NXDOMAIN => Ok(Vec::new()),
        rcode => Err(Error::Refused {
            name: name.clone(),
            rcode,
        }),
    }
}

/// Those of the name that was asked for, or of the one that it is an alias of.
fn records<O: AsRef<[u8]>>(answer: &Message<O>) -> Result<Vec<Record>, ParseError> {
    let answer = answer.for_slice();
    let Some(name) = answer.canonical_name() else {
        return Ok(Vec::new());
    };
    let mut records = Vec::new();
    for record in answer.answer()?.limit_to_in::<Srv<_>>() {
        let record = record?;
        let srv = record.data();
        // A target that is no host name is of no use, as the "." of those who say that there is none.
        let endpoint = format!("{}:{}", srv.target(), srv.port()).parse();
        if *record.owner() == name
            && let Ok(endpoint) = endpoint
            && records.len() < MAX
        {
            records.push(Record {
                priority: srv.priority(),
                weight: srv.weight(),
                endpoint,
            });
        }
    }
    Ok(records)
}

/// The lowest priority first; among those of one priority by lot, where who has more weight comes first more often. `random`
/// gives numbers in `0..1`.
pub(super) fn order(mut records: Vec<Record>, mut random: impl FnMut() -> f64) -> Vec<Endpoint> {
    // Those without weight come first within their priority, as RFC 2782 has it: so they have a small chance too.
    records.sort();
    let mut ordered = Vec::new();
    while let Some(first) = records.first() {
        let priority = first.priority;
        let rivals = records.iter().take_while(|record| record.priority == priority);
        let sum: f64 = rivals.clone().map(|record| f64::from(record.weight)).sum();
        let lot = random().clamp(0.0, 1.0) * sum;
        let mut so_far = 0.0;
        let chosen = rivals
            .map(|record| {
                so_far += f64::from(record.weight);
                so_far
            })
            .position(|so_far| so_far >= lot);
        ordered.push(records.remove(chosen.unwrap_or(0)).endpoint);
    }
    ordered
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::SocketAddr;

    use domain::{
        base::{MessageBuilder, iana::Class},
        resolv::stub::conf::{ServerConf, Transport},
    };
    use proptest::prelude::*;
    use tokio::net::UdpSocket;

    use super::*;

    const NAME: &str = "_muster._tcp.example.com";

    fn record(priority: u16, weight: u16, endpoint: &str) -> Record {
        Record {
            priority,
            weight,
            endpoint: endpoint.parse().unwrap(),
        }
    }

    /// Of one priority and weight.
    pub(in crate::endpoints) fn equals(endpoints: &[&str]) -> Vec<Record> {
        endpoints.iter().map(|endpoint| record(0, 1, endpoint)).collect()
    }

    fn shown(endpoints: &[Endpoint]) -> Vec<String> {
        endpoints.iter().map(Endpoint::to_string).collect()
    }

    /// What comes of one question at a name server that answers like this.
    async fn asked(rcode: Rcode, answers: &[(u16, u16, u16, &str)]) -> Result<Vec<Record>, Error> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server: SocketAddr = socket.local_addr().unwrap();
        let mut conf = ResolvConf::new();
        conf.servers.push(ServerConf::new(server, Transport::UdpTcp));
        conf.finalize();
        let name: SrvName = NAME.parse().unwrap();
        let serve = async {
            let mut buffer = [0; 1500];
            let (count, client) = socket.recv_from(&mut buffer).await.unwrap();
            let question = Message::from_octets(&buffer[..count]).unwrap();
            let builder = MessageBuilder::new_vec();
            let mut builder = builder.start_answer(&question, rcode).unwrap();
            let owner: Name<Vec<u8>> = NAME.parse().unwrap();
            for (priority, weight, port, target) in answers {
                let target: Name<Vec<u8>> = target.parse().unwrap();
                let srv = Srv::new(*priority, *weight, *port, target);
                builder.push((&owner, Class::IN, 60, srv)).unwrap();
            }
            socket.send_to(&builder.finish(), client).await.unwrap();
        };
        tokio::join!(ask(&name, conf), serve).0
    }

    #[tokio::test]
    async fn what_the_name_server_answers_becomes_endpoints() {
        let answers = [
            (10, 5, 8443, "b.example.com"),
            (10, 5, 0, "no-port.example.com"),
            (0, 0, 8443, "a.example.com"),
        ];
        let mut records = asked(Rcode::NOERROR, &answers).await.unwrap();
        records.sort();
        assert_eq!(
            records,
            [record(0, 0, "a.example.com:8443"), record(10, 5, "b.example.com:8443")]
        );
    }

    #[tokio::test]
    async fn no_such_name_and_no_such_service_are_no_endpoints_and_a_failure_is_an_error() {
        assert_eq!(asked(Rcode::NXDOMAIN, &[]).await.unwrap(), []);
        assert_eq!(asked(Rcode::NOERROR, &[]).await.unwrap(), []);
        assert_eq!(asked(Rcode::NOERROR, &[(0, 0, 0, ".")]).await.unwrap(), []);
        let error = asked(Rcode::REFUSED, &[]).await.unwrap_err();
        assert!(
            error.to_string().contains(NAME) && error.to_string().contains("REFUSED"),
            "{error}"
        );
    }

    #[test]
    fn priorities_come_in_order_and_weights_decide_by_lot() {
        let records = vec![
            record(10, 0, "d:1"),
            record(0, 0, "c:1"),
            record(0, 30, "b:1"),
            record(0, 70, "a:1"),
        ];
        let order = |lot: f64| shown(&order(records.clone(), || lot));
        assert_eq!(order(0.0), ["c:1", "b:1", "a:1", "d:1"]);
        assert_eq!(order(0.2), ["b:1", "a:1", "c:1", "d:1"]);
        assert_eq!(order(0.9), ["a:1", "b:1", "c:1", "d:1"]);
    }

    proptest! {
        #[test]
        fn no_record_is_lost_whatever_the_weights_and_lots(
            weights in proptest::collection::vec((0u16..3, any::<u16>()), 0..20),
            lots in proptest::collection::vec(-0.5..1.5, 1..5),
        ) {
            let records: Vec<Record> = (1..).zip(&weights)
                .map(|(port, (priority, weight))| record(*priority, *weight, &format!("a:{port}")))
                .collect();
            let mut lots = lots.into_iter().cycle();
            let ordered = order(records.clone(), || lots.next().unwrap_or(0.5));
            let priority = |endpoint: &Endpoint| records.iter().find(|it| it.endpoint == *endpoint).map(|it| it.priority);
            prop_assert!(ordered.iter().map(priority).is_sorted());
            prop_assert_eq!(ordered.len(), records.len());
        }

        #[test]
        fn any_answer_is_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 12..200)) {
            if let Ok(message) = Message::from_octets(bytes) {
                let _ = records(&message);
            }
        }
    }
}
