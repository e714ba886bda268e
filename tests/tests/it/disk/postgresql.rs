//! The same where the disk is that of PostgreSQL, on which the controller sees no room and none missing.

use muster_tests::{Controller, ServerYaml, postgres::Server, small_disk};

use super::{PATIENCE, all_arrived, counting, finding, findings, more_wait, nothing_is_wrong, poll, stored, told};

#[test]
fn a_disk_of_postgresql_that_is_full_acknowledges_nothing_and_loses_nothing() {
    small_disk::alone("PostgreSQL on a full disk", || {
        let Some(server) = Server::start_on("PostgreSQL on a full disk", Some("size=128m")) else {
            return;
        };
        let settings = ServerYaml::new().heartbeat("1s");
        let mut controller = Controller::set_up_at(&server, &settings.to_string());
        controller.run();
        counting::apply(&controller, super::FILE);
        let agent = controller.agent("host").start();
        controller.wait_for_agent("host", "ONLINE");
        stored(&agent, 2);
        nothing_is_wrong(&controller, true);

        server.disk().leave_free(0.0);
        more_wait(&agent, "results", 8);
        controller.wait_for_agent("host", "ONLINE");
        let attempts = controller.log().matches("nothing was acknowledged").count();
        assert!(
            (1..=12).contains(&attempts),
            "{attempts} attempts:\n{}",
            controller.log()
        );
        let refused = poll::until("a change finds no room", PATIENCE, || {
            let outcome = controller.ctl().run(&["token", "create", "--ttl", "1h"]);
            if outcome.code == 0 { Err(outcome) } else { Ok(outcome) }
        });
        refused.explains().says(&["DISK_FULL", "muster-server doctor"]);
        // It looks at a database that takes no writes all the same.
        let (level, text) = finding(&findings(&controller, 0), "database");
        assert_eq!(level, "ok", "{text}");

        server.disk().make_room();
        let full = told(&controller, "DISK_FULL");
        assert!(
            full["message"]
                .as_str()
                .is_some_and(|text| text.contains("found no room")),
            "{full}"
        );
        told(&controller, "DISK_OK");
        all_arrived(&controller, agent);
        let log = controller.log();
        assert_eq!(log.matches("agent disconnected").count(), 1, "the link stays: {log}");
        assert!(!log.contains("panicked"), "{log}");
        controller.stop();
        nothing_is_wrong(&controller, false);
    });
}
