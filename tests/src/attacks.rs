//! Attacks on a running controller, by category: what each got, and that the controller and two healthy agents beside it
//! were none the worse. The small form takes about a minute; the full one makes the same attacks by the thousand. All of it
//! on loopback addresses, bounded in count and in time.

mod certificates;
pub mod dialer;
pub mod forge;
mod frames;
mod ground;
mod grpc;
mod http2;
mod ids;
mod methods;
mod report;
mod requests;
mod rotated;
mod standings;
mod tls;
mod tokens;

use std::collections::BTreeMap;

use muster_certs::{csr, key::KeyPair};
use muster_proto::v1::EnrollRequest;
use prost::Message as _;

pub use ground::Ground;
pub use methods::{Listener, Who, table};
pub use report::{Case, Category, Recovery, Report};

use dialer::{Call, Dialer};

const ENROLL: &str = "/muster.v1.EnrollmentService/Enroll";

/// How much of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Small,
    Full,
}

impl Form {
    pub fn name(self) -> &'static str {
        match self {
            Form::Small => "small",
            Form::Full => "full",
        }
    }

    fn pick(self, small: usize, full: usize) -> usize {
        match self {
            Form::Small => small,
            Form::Full => full,
        }
    }
}

/// The names of all categories, in the order in which they are run.
pub const CATEGORIES: [&str; 8] = [
    "tokens",
    "csrs",
    "ids",
    "certificates",
    "methods",
    "tls",
    "http2",
    "grpc",
];

/// Runs these categories, one after the other, on a controller of their own. What is known of each is told to `progress`.
///
/// # Panics
/// When there is no such category, or the controller cannot be set up.
pub fn run(form: Form, categories: &[&str], mut progress: impl FnMut(&Category)) -> Report {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut ground = Ground::start();
    let mut report = Report {
        form: form.name(),
        categories: Vec::new(),
    };
    for name in categories {
        let name = CATEGORIES.iter().find(|known| *known == name).expect("a category");
        let mut category = Category::new(name);
        runtime.block_on(async {
            match *name {
                "tokens" => tokens::attack(form, &ground, &mut category).await,
                "csrs" => requests::attack(form, &ground, &mut category).await,
                "ids" => ids::attack(&ground, &mut category).await,
                "certificates" => certificates::attack(&ground, &mut category).await,
                "methods" => methods::attack(&ground, &mut category).await,
                "tls" => tls::attack(form, &ground, &mut category).await,
                "http2" => http2::attack(form, &ground, &mut category).await,
                _ => grpc::attack(form, &ground, &mut category).await,
            }
        });
        category.after = ground.recovered();
        progress(&category);
        report.categories.push(category);
    }
    report
}

/// What a machine with this token would send for a new key.
fn enrollment(token: &str, name: &str) -> EnrollRequest {
    EnrollRequest {
        token: token.to_owned(),
        csr: csr::create(&KeyPair::generate().expect("a key")).expect("a request"),
        name: name.to_owned(),
        labels: BTreeMap::new(),
        ..EnrollRequest::default()
    }
}

async fn enroll(from: Dialer, request: &EnrollRequest) -> String {
    from.call(from.agents_port, None, Call::grpc(ENROLL, &request.encode_to_vec()))
        .await
}
