//! A second controller for the database of the first, as an operator sets one up: on another host, with a copy of the keys.

use std::{fs, path::Path};

use super::Controller;
use crate::{
    poll::{self, SECOND},
    ports,
};

impl Controller {
    /// One that does not run yet. None on SQLite, which is for one host; that there is no other is said by whoever chose it.
    pub fn standby(&self) -> Option<Self> {
        let url = self.database_url()?;
        let standby = Self {
            process: None,
            agents_port: ports::free(),
            api_port: ports::free(),
            environment: Vec::new(),
            database: None,
            dir: tempfile::tempdir().expect("a directory"),
        };
        copy(&self.data_dir(), &standby.data_dir());
        let data_dir = |of: &Self| of.data_dir().display().to_string();
        standby.rewrite(&standby.config(), |config| {
            let config = config.replace(&data_dir(self), &data_dir(&standby));
            let lines = config.lines().map(|line| match line.split_once(": ") {
                Some(("name", _)) => "name: controller2".to_owned(),
                Some(("agent_listen", _)) => format!("agent_listen: {}", standby.endpoint()),
                Some(("api_listen", _)) => format!("api_listen: {}", standby.api()),
                Some(("advertise", _)) => {
                    format!("advertise: [\"{}\", \"{}\"]", self.endpoint(), standby.endpoint())
                }
                _ => line.to_owned(),
            });
            lines.collect::<Vec<_>>().join("\n")
        });
        fs::copy(self.path("tester.yaml"), standby.path("tester.yaml")).expect("the context file is copied");
        standby.rewrite(&standby.path("tester.yaml"), |context| {
            context.replace(&self.api(), &standby.api())
        });
        assert!(!url.is_empty());
        Some(standby)
    }

    /// Starts it and waits until it says that another one is active.
    pub fn stand_by(&mut self) {
        self.launch();
        poll::until("the controller is standby", 60 * SECOND, || {
            assert!(self.is_running(), "the controller ended:\n{}", self.log());
            let log = self.log();
            if log.contains("waiting as standby") {
                Ok(())
            } else {
                Err(log)
            }
        });
    }

    /// Brings the keys of `active` here again, as after every step of a rotation.
    pub fn copy_keys(&self, active: &Self) {
        let keys = self.data_dir().join("pki");
        fs::remove_dir_all(&keys).expect("the old copy goes");
        copy(&active.data_dir().join("pki"), &keys);
    }

    fn rewrite(&self, path: &Path, change: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(path).expect("a file");
        fs::write(path, change(text)).expect("the file is written");
    }
}

/// With modes, and all that is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    fs::set_permissions(to, fs::metadata(from).expect("a directory").permissions()).expect("the mode is set");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("the file is copied");
        }
    }
}
