//! What people and programs get wrong: each mistake is named with what, why and do, has its code, and changes nothing.

mod config;
mod enrollment;
mod manifests;
mod plugins;

use std::{fs, path::PathBuf};

use muster_tests::Controller;
use serde_json::{Value, json};

pub fn check(name: &str, run: Value) -> String {
    json!({
        "apiVersion": "muster/v1", "kind": "Check", "metadata": { "name": name },
        "spec": { "selector": "*", "schedule": { "interval": "1h" }, "timeout": "60s", "run": run },
    })
    .to_string()
}

pub fn write(controller: &Controller, name: &str, text: &str) -> PathBuf {
    let path = controller.path(name);
    fs::write(&path, text).expect("the file is written");
    path
}

#[track_caller]
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

pub fn names(controller: &Controller) -> Vec<String> {
    let agents = controller.ctl().items(&["agent", "list"]).expect("a list");
    agents.iter().map(|agent| text(agent, "name").to_owned()).collect()
}
