//! A Terraform file: the token as a sensitive variable, the agent's UUID as another, and the user data made of both. It
//! stands in a folder of its own, as a module, or beside the resources of machines.

use super::{Machine, cloud_init};

/// Stand-ins while the rest is escaped. No part of a machine holds such a character.
const TOKEN: &str = "<token>";
const AGENT_ID: &str = "<agent-id>";

pub(super) fn render(machine: &Machine) -> String {
    let user_data = format!("#cloud-config\n{}", cloud_init::body(machine, TOKEN, Some(AGENT_ID)));
    let user_data = template(&user_data)
        .replace(TOKEN, "${var.muster_token}")
        .replace(AGENT_ID, "${lower(var.agent_id)}");
    let agent_id = machine
        .agent_id
        .map(|id| format!("  default     = \"{id}\"\n"))
        .unwrap_or_default();
    format!(
        "\
# {comment}
# Holds the token, a secret. To keep it out of this file, take the default out and set TF_VAR_muster_token.
# A new token is no reason for a new machine: lifecycle {{ ignore_changes = [user_data] }}

variable \"muster_token\" {{
  description = \"Muster token that the machine enrolls with\"
  type        = string
  sensitive   = true
  default     = \"{token}\"

  validation {{
    condition     = can(regex(\"^mst_[0-9a-f]{{16}}_[0-9a-f]{{64}}$\", var.muster_token))
    error_message = \"A token is what musterctl token create --format raw prints.\"
  }}
}}

variable \"agent_id\" {{
  description = \"UUID of the agent, for example random_uuid.agent.result\"
  type        = string
{agent_id}
  validation {{
    condition     = can(regex(\"^[0-9A-Fa-f]{{8}}(-[0-9A-Fa-f]{{4}}){{3}}-[0-9A-Fa-f]{{12}}$\", var.agent_id))
    error_message = \"The agent's id is a UUID of 36 characters.\"
  }}
}}

locals {{
  muster_user_data = <<EOT
{user_data}EOT
}}

output \"user_data\" {{
  description = \"User data of the machine, for cloud-init\"
  value       = local.muster_user_data
  sensitive   = true
}}
",
        comment = machine.comment,
        token = *machine.token.expose(),
    )
}

/// `text` as a heredoc that means itself.
fn template(text: &str) -> String {
    text.replace("${", "$${").replace("%{", "%%{")
}
