//! Calls whose caller leaves halfway, and how they end with a controller as a whole.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt as _;
use muster_proto::v1::{self, ApplyPoliciesRequest, policy::Spec, policy_service_server::PolicyService as _};
use tokio_util::sync::CancellationToken;
use tonic::Request;

use super::Api;
use crate::{
    access::{Caller, OpCtx, Operator, rights::Subject, scope::Scopes},
    app::{self, Controller},
    config::Config,
    pki::Pki,
    store::{Db, Source},
};

fn request(name: &str) -> Request<ApplyPoliciesRequest> {
    let run = v1::Run {
        memory: Some(v1::MemoryRun::default()),
        ..Default::default()
    };
    let check = v1::Check {
        selector: "*".into(),
        run: Some(run),
        ..Default::default()
    };
    let metadata = v1::PolicyMetadata {
        name: name.into(),
        ..Default::default()
    };
    let policy = v1::Policy {
        metadata: Some(metadata),
        spec: Some(Spec::Check(check)),
        ..Default::default()
    };
    let mut request = Request::new(ApplyPoliciesRequest { policies: vec![policy] });
    request.extensions_mut().insert(OpCtx {
        caller: Caller::Operator(Operator {
            subject: Subject::User("first".into()),
            rights: Default::default(),
            scopes: Scopes::all(),
            ended: Default::default(),
        }),
        source: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        request_id: "r1".into(),
        note: Default::default(),
    });
    request
}

/// Applies a policy for a caller who leaves after so many steps; whether it came to the end before.
async fn apply_for(api: &Api, name: &str, mut steps: usize) -> bool {
    let mut call = pin!(api.apply_policies(request(name)));
    std::future::poll_fn(|cx| {
        if steps == 0 {
            return Poll::Ready(false);
        }
        steps -= 1;
        call.as_mut().poll(cx).map(|answer| answer.is_ok())
    })
    .await
}

async fn start(folder: &Path) -> (Controller, Source) {
    let mut config = Config::new("c1", "test.muster".parse().unwrap(), folder.to_owned());
    config.agent_listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.api_listen = config.agent_listen;
    Pki::create(&config.pki_dir(), &config.trust_domain, SystemTime::now()).unwrap();
    let controller = app::start(config, &CancellationToken::new()).await.unwrap();
    (controller.expect("a controller"), Source::Sqlite(folder.to_owned()))
}

/// What a controller sees that is told to stop at once.
fn stopped() -> CancellationToken {
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    shutdown
}

#[tokio::test]
async fn what_is_committed_reaches_memory_though_its_caller_leaves_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let (controller, source) = start(folder.path()).await;
    let api = Arc::clone(&controller.api);

    let (mut steps, mut ended) = (0, false);
    while !ended {
        // Several, since the steps of a call are not always as many.
        for n in 0..10 {
            ended = apply_for(&api, &format!("policy-{steps}-{n}"), steps).await;
        }
        steps += 1;
        assert!(steps < 1_000, "a call has an end");
    }
    controller.run(stopped()).await.unwrap();

    let db = Db::open(&source).await.unwrap();
    let stored: Vec<String> = db
        .policy_list()
        .await
        .unwrap()
        .into_iter()
        .map(|row| row.name)
        .collect();
    let current = api.policies.current();
    let known: Vec<String> = current.policies.keys().map(|key| key.name.clone()).collect();
    assert_eq!(stored, known);
    db.close().await;
}

#[tokio::test]
async fn a_database_that_does_not_answer_does_not_keep_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let (controller, source) = start(folder.path()).await;
    let api = Arc::clone(&controller.api);
    // Somebody else writes, and goes on.
    let other = Db::open(&source).await.unwrap();
    let held = other.begin().await.unwrap();
    assert!(api.apply_policies(request("waits")).now_or_never().is_none());

    tokio::time::pause();
    let begin = tokio::time::Instant::now();
    controller.run(stopped()).await.unwrap();
    let took = begin.elapsed();
    assert!(took <= Duration::from_secs(5), "{took:?}");
    drop(held);
}
