output "ids" {
  description = "The UUID of each agent, by the name of its machine"
  value       = { for name, id in terraform_data.id : name => id.output }
}

output "user_data" {
  description = "What cloud-init gets, by the name of the machine. A new token is no reason for a new machine: lifecycle { ignore_changes = [user_data] }"
  value       = local.user_data
  sensitive   = true
  # No machine before its entry.
  depends_on = [terraform_data.entry]
}
