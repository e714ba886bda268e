variable "agents" {
  description = "The machines, by name, with the labels that they have from the beginning"
  type = map(object({
    labels = optional(map(string), {})
  }))

  validation {
    condition     = alltrue([for name in keys(var.agents) : can(regex("^[0-9A-Za-z]([0-9A-Za-z._-]{0,251}[0-9A-Za-z])?$", name))])
    error_message = "A name is up to 253 of A-Z, a-z, 0-9, \".\", \"_\" and \"-\", with a letter or digit at both ends."
  }
}

variable "endpoints" {
  description = "Where agents reach the controller: host:port, the first that answers"
  type        = list(string)

  validation {
    condition     = length(var.endpoints) > 0
    error_message = "Agents need at least one endpoint."
  }
}

variable "ca_pins" {
  description = "Pins of the controller's CA, as musterctl token create shows them: sha256:..."
  type        = list(string)

  validation {
    condition     = length(var.ca_pins) > 0 && alltrue([for pin in var.ca_pins : can(regex("^sha256:[0-9a-f]{64}$", pin))])
    error_message = "A pin is sha256: and 64 hexadecimal digits; there is at least one."
  }
}

variable "join_token" {
  description = "The secret that the machines enroll with: what musterctl token create --format raw prints. It grants every label that is given here"
  type        = string
  sensitive   = true

  validation {
    condition     = can(regex("^mst_[0-9a-f]{16}_[0-9a-f]{64}$", var.join_token))
    error_message = "A token is what musterctl token create --format raw prints."
  }
}

variable "musterctl" {
  description = "The command that talks to the controller"
  type        = string
  default     = "musterctl"
}

variable "musterctl_config" {
  description = "The context file of musterctl; empty: its own default"
  type        = string
  default     = ""
}
