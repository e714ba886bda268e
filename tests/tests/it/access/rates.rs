//! A script that calls too often: it is refused for as long as it goes on, and keeps its connection.

use futures_util::future::join_all;
use muster_proto::v1::{ListRolesRequest, role_service_client::RoleServiceClient};
use muster_tests::{
    Controller,
    operators::{Operator, outcome},
};

/// HTTP/2 ends a connection with as many streams that said something behind their answer.
const TOO_MANY_FOR_HTTP2: usize = 1_024;
const AT_ONCE: usize = 64;

#[tokio::test]
async fn whoever_calls_too_often_is_refused_and_keeps_the_connection() {
    let controller = Controller::start_with("limits: { reads_per_second: 1 }");
    let roles = RoleServiceClient::new(Operator::admin(&controller).await.service());
    let mut refused = 0;
    while refused < 4 * TOO_MANY_FOR_HTTP2 {
        let calls = (0..AT_ONCE).map(|_| {
            let mut roles = roles.clone();
            async move { roles.list_roles(ListRolesRequest::default()).await }
        });
        for answer in join_all(calls).await {
            match outcome(&answer).as_str() {
                "OK" => {}
                "RESOURCE_EXHAUSTED RATE_LIMITED" => refused += 1,
                other => panic!("after {refused} refusals: {other}"),
            }
        }
    }
}
