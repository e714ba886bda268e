//! A plan in a file: what was asked, and what the controller said it would do. It holds no secret.

use std::{fs, path::Path};

use muster_proto::{json, manifest, v1};
use serde_json::{Value, json};

use super::Wanted;
use crate::{exit::Exit, output::document, problem::Problem};

const KIND: &str = "Plan";
/// A thousand manifests and what is said of them.
const LARGEST: u64 = 64 * 1024 * 1024;

#[derive(Debug)]
pub struct PlanFile {
    pub wanted: Wanted,
    pub plan: v1::Plan,
}

impl PlanFile {
    pub fn write(&self, path: &Path) -> Result<(), Problem> {
        let request = v1::ApplyManifestsRequest {
            manifests: self.wanted.manifests.clone(),
            owner: self.wanted.owner.clone(),
            prune: self.wanted.prune,
            delete: self.wanted.delete,
            digest: self.plan.digest.clone(),
        };
        let value = json!({
            "apiVersion": manifest::API_VERSION,
            "kind": KIND,
            "request": json::to_json(&request),
            "plan": json::to_json(&self.plan),
        });
        fs::write(path, document::json(&value)).map_err(|error| {
            Problem::new(
                Exit::Failure,
                format!("the plan could not be kept in {}", path.display()),
            )
            .why(error.to_string())
            .step("name a file in a folder that can be written to: --out FILE")
        })
    }

    pub fn read(path: &Path) -> Result<PlanFile, Problem> {
        let wrong = |why: String| {
            Problem::new(
                Exit::Usage,
                format!("{} is no plan that can be applied", path.display()),
            )
            .why(why)
            .step("make one: musterctl plan -f FILE --out FILE")
        };
        let length = fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
        if length > LARGEST {
            return Err(wrong(format!("it is longer than {} MiB", LARGEST >> 20)));
        }
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if value["apiVersion"] != manifest::API_VERSION || value["kind"] != KIND {
            return Err(wrong(format!(
                "it has not apiVersion {} and kind {KIND}",
                manifest::API_VERSION
            )));
        }
        let request: v1::ApplyManifestsRequest =
            json::from_json(&value["request"].to_string()).map_err(|error| wrong(error.to_string()))?;
        let plan: v1::Plan = json::from_json(&value["plan"].to_string()).map_err(|error| wrong(error.to_string()))?;
        if request.digest.is_empty() {
            return Err(wrong("it does not say which plan it is".to_owned()));
        }
        Ok(PlanFile {
            plan: v1::Plan {
                digest: request.digest,
                ..plan
            },
            wanted: Wanted {
                manifests: request.manifests,
                owner: request.owner,
                prune: request.prune,
                delete: request.delete,
            },
        })
    }
}
