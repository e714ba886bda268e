//! What the parts of a backup are called, what its first and its last part say, and how large each may be.

use std::collections::BTreeMap;

use muster_proto::digest;
use serde::{Deserialize, Serialize};

use crate::clock::Micros;

/// Raised when an older release could not read what a newer one writes.
pub const FORMAT: u32 = 1;

/// First, before anything that depends on it.
pub const HEADER: &str = "header.json";
/// Last, since it tells of all others.
pub const MANIFEST: &str = "manifest.json";
pub const CONFIGURATION: &str = "server.yaml";

/// Of one part. What is written is cut into parts of about [`PART`]; a single row may be larger.
pub const MAX_PART: u64 = 32 << 20;
pub const PART: usize = 1 << 20;
/// Of a part that is neither rows nor the manifest.
pub const MAX_FILE: u64 = 1 << 20;
pub const MAX_FILES: usize = 1_000;
pub const MAX_PARTS: usize = 200_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    pub format: u32,
    /// The release that wrote it.
    pub muster: String,
    /// The newest migration of the database.
    pub schema: i64,
    pub taken_at: Micros,
    pub trust_domain: String,
    pub controller: String,
    /// How many times this database was restored before.
    pub epoch: i64,
    /// The columns of each table, in the order of their values.
    pub tables: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub header: Header,
    /// Of each table.
    pub rows: BTreeMap<String, u64>,
    pub parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub name: String,
    pub bytes: u64,
    /// `sha256:<hex>`.
    pub hash: String,
}

/// What a part is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    Manifest,
    Configuration,
    /// Below the folder of the keys.
    Key(&'a str),
    /// Of this table.
    Rows(&'a str),
}

impl Part {
    pub fn of(name: &str, bytes: &[u8]) -> Self {
        Self {
            name: name.to_owned(),
            bytes: bytes.len() as u64,
            hash: digest::of_bytes(bytes),
        }
    }
}

pub fn key_name(below_pki: &str) -> String {
    format!("pki/{below_pki}")
}

pub fn rows_name(table: &str, number: usize) -> String {
    format!("tables/{table}-{number:06}.jsonl")
}

/// None: no part of a backup has this name. What is left of it is safe to be the name of a file.
pub fn kind(name: &str) -> Option<Kind<'_>> {
    match name {
        MANIFEST => return Some(Kind::Manifest),
        CONFIGURATION => return Some(Kind::Configuration),
        _ => {}
    }
    if let Some(below) = name.strip_prefix("pki/") {
        return is_key(below).then_some(Kind::Key(below));
    }
    let (table, number) = name.strip_prefix("tables/")?.strip_suffix(".jsonl")?.rsplit_once('-')?;
    let is_number = (6..10).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(Kind::Rows(table))
}

/// `root.pem`, or `<folder>/root.pem`.
pub fn is_key(below_pki: &str) -> bool {
    let mut names = below_pki.split('/');
    let is_name = |name: &str| {
        !name.starts_with('.')
            && (1..=80).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    let is_file = below_pki.ends_with(".pem") || below_pki.ends_with(".json");
    is_file && below_pki.matches('/').count() <= 1 && names.all(is_name)
}
