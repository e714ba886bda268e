//! The comments of the contract, as texts without line breaks but those between paragraphs; empty where there is none.

use std::{collections::HashMap, sync::LazyLock};

use prost_reflect::{
    EnumDescriptor, EnumValueDescriptor, FieldDescriptor, FileDescriptor, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor,
};

use crate::json::descriptor_pool;

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
    for file in descriptor_pool().files() {
        let Some(info) = &file.file_descriptor_proto().source_code_info else {
            continue;
        };
        for location in &info.location {
            if let Some(comment) = &location.leading_comments {
                all.insert((file.name().to_owned(), location.path.clone()), flowing(comment));
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
