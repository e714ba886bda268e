# Agents of Muster: an id and an entry for each machine before the machine is, and the user data that makes it that agent.
# Needs no provider: ids are made by uuid(), entries by musterctl.

terraform {
  required_version = ">= 1.4"
}

# Made once; uuid() would be another one at every plan.
resource "terraform_data" "id" {
  for_each = var.agents
  input    = uuid()

  lifecycle {
    ignore_changes = [input]
  }
}

# What is taken back with the machine.
resource "terraform_data" "agent" {
  for_each = var.agents

  input = {
    id        = terraform_data.id[each.key].output
    musterctl = var.musterctl
    config    = var.musterctl_config
  }

  provisioner "local-exec" {
    when        = destroy
    interpreter = [self.input.musterctl, "agent", "delete"]
    command     = self.input.id
    environment = self.input.config == "" ? {} : { MUSTER_CONFIG = self.input.config }
  }
}

# The entry, with the labels of now: other labels are no reason for another machine. No shell is involved: the interpreter is the
# program with its arguments, the command the last of them.
resource "terraform_data" "entry" {
  for_each         = var.agents
  triggers_replace = [terraform_data.agent[each.key].output.id, each.value.labels]

  provisioner "local-exec" {
    interpreter = concat(
      [var.musterctl, "agent", "preregister", "--name", each.key],
      flatten([for key, value in each.value.labels : ["--label", "${key}=${value}"]]),
      ["--id"],
    )
    command     = terraform_data.agent[each.key].output.id
    environment = var.musterctl_config == "" ? {} : { MUSTER_CONFIG = var.musterctl_config }
  }
}

locals {
  user_data = {
    for name, id in terraform_data.id : name => join("\n", ["#cloud-config", yamlencode({
      write_files = [
        {
          path        = "/etc/muster/agent.yaml"
          owner       = "root:root"
          permissions = "0644"
          content = yamlencode({
            server = {
              endpoints  = var.endpoints
              ca_pin     = var.ca_pins
              token_file = "/etc/muster/join-token"
            }
          })
        },
        {
          path        = "/etc/muster/agent-id"
          owner       = "root:root"
          permissions = "0644"
          content     = "${id.output}\n"
        },
        {
          path        = "/etc/muster/join-token"
          owner       = "root:root"
          permissions = "0600"
          content     = "${var.join_token}\n"
        },
      ]
      runcmd = [
        ["systemctl", "enable", "muster-agent"],
        ["systemctl", "restart", "muster-agent"],
        ["muster-agent", "wait", "--for=enrolled", "--timeout", "5m"],
      ]
    })])
  }
}
