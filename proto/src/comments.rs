//! The comments of the contract, as texts without line breaks but those between paragraphs; empty where there is none.

use std::{collections::HashMap, sync::LazyLock};

use prost::Message as _;
use prost_reflect::{
    EnumDescriptor, EnumValueDescriptor, FieldDescriptor, FileDescriptor, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor,
};
use prost_types::FileDescriptorSet;

use crate::DESCRIBED;

pub fn of_service(service: &ServiceDescriptor) -> String {
    of(&service.parent_file(), service.path())
}

pub fn of_method(method: &MethodDescriptor) -> String {
    of(&method.parent_file(), method.path())
}

pub fn of_message(message: &MessageDescriptor) -> String {
    of(&message.parent_file(), message.path())
}

pub fn of_field(field: &FieldDescriptor) -> String {
    of(&field.parent_file(), field.path())
}

pub fn of_enum(kind: &EnumDescriptor) -> String {
    of(&kind.parent_file(), kind.path())
}

pub fn of_enum_value(value: &EnumValueDescriptor) -> String {
    of(&value.parent_file(), value.path())
}

/// Of what stands at a path of a file; empty: there is none.
fn of(file: &FileDescriptor, path: &[i32]) -> String {
    static ALL: LazyLock<HashMap<(String, Vec<i32>), String>> = LazyLock::new(all);
    ALL.get(&(file.name().to_owned(), path.to_owned()))
        .cloned()
        .unwrap_or_default()
}

fn all() -> HashMap<(String, Vec<i32>), String> {
    let mut all = HashMap::new();
    let described = FileDescriptorSet::decode(DESCRIBED).expect("the build wrote these descriptors");
    for file in described.file {
        let locations = file.source_code_info.into_iter().flat_map(|info| info.location);
        for location in locations {
            if let Some(comment) = &location.leading_comments {
                let place = (file.name.clone().unwrap_or_default(), location.path);
                all.insert(place, flowing(comment));
            }
        }
    }
    all
}

fn flowing(comment: &str) -> String {
    let paragraphs = comment.split("\n\n").map(|paragraph| {
        let lines: Vec<&str> = paragraph
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        lines.join(" ")
    });
    paragraphs
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join("\n\n")
}
