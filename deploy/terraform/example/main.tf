# Two machines that are agents from their first boot. Put the resource of your cloud where the comment is.
#
#   export TF_VAR_join_token=$(musterctl token create --uses 10 --ttl 1h --label env=prod --format raw)

variable "join_token" {
  type      = string
  sensitive = true
}

variable "endpoints" {
  type    = list(string)
  default = ["controller.example.com:8443"]
}

variable "ca_pins" {
  type = list(string)
}

variable "musterctl" {
  type    = string
  default = "musterctl"
}

module "agents" {
  source     = "../agents"
  endpoints  = var.endpoints
  ca_pins    = var.ca_pins
  join_token = var.join_token
  musterctl  = var.musterctl
  agents = {
    web-01 = { labels = { env = "prod" } }
    db-01  = { labels = { env = "prod" } }
  }
}

# resource "..." "machine" {
#   for_each  = module.agents.ids
#   name      = each.key
#   user_data = module.agents.user_data[each.key]
#   lifecycle { ignore_changes = [user_data] }
# }

output "ids" {
  value = module.agents.ids
}

output "user_data" {
  value     = module.agents.user_data
  sensitive = true
}
