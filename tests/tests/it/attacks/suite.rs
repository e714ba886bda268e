//! The suite of `attack`, in its small form: what `tests/prove.sh attacks` makes by the thousand.

use muster_server::access;
use muster_tests::{
    attacks::{self, CATEGORIES, Form, Listener, Who},
    turn,
};

#[test]
fn every_attack_gets_its_refusal_and_harms_nobody() {
    let _turn = turn::of_heavy_tests();
    let report = attacks::run(Form::Small, &CATEGORIES, |category| println!("{category}"));
    assert!(report.held(), "{report}");
    println!("{}", report.verdict());
}

/// The suite has its own opinion of who may call what; a method that is new has to be in both.
#[test]
fn the_attacks_on_methods_leave_none_out() {
    let mut attacked: Vec<String> = attacks::table().iter().map(|row| format!("{row:?}")).collect();
    let served = access::METHODS.iter().filter(|method| method.is_grpc());
    let mut served: Vec<String> = served
        .map(|method| {
            let listener = match method.listener {
                access::Listener::Agents => Listener::Agents,
                access::Listener::Api => Listener::Api,
            };
            let who = match method.who {
                access::Who::Newcomer => Who::Newcomer,
                access::Who::NewcomerOrAgent => Who::NewcomerOrAgent,
                access::Who::Agent => Who::Agent,
                access::Who::Renewer => Who::Renewer,
                access::Who::Operator(_) | access::Who::AnyOperator => Who::Admin,
                access::Who::Anyone => Who::Anyone,
            };
            format!("{:?}", (method.path.to_owned(), listener, who))
        })
        .collect();
    attacked.sort();
    served.sort();
    assert_eq!(attacked, served);
}
