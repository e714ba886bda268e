# terraform test: asks no controller, `true` stands for musterctl.

variables {
  musterctl  = "true"
  endpoints  = ["controller.example.com:8443"]
  ca_pins    = ["sha256:0000000000000000000000000000000000000000000000000000000000000000"]
  join_token = "mst_0000000000000000_0000000000000000000000000000000000000000000000000000000000000000"
  agents = {
    web-01 = { labels = { env = "prod", role = "web" } }
    db-01  = {}
  }
}

run "every_machine_has_an_id_and_user_data" {
  assert {
    condition     = length(distinct(values(output.ids))) == 2
    error_message = "Two machines have two ids."
  }

  assert {
    condition     = yamldecode(trimprefix(output.user_data["web-01"], "#cloud-config\n")).write_files[1].content == "${output.ids["web-01"]}\n"
    error_message = "The user data of a machine holds its id."
  }

  assert {
    condition     = startswith(output.user_data["db-01"], "#cloud-config\n")
    error_message = "cloud-init knows its data by the first line."
  }
}

run "a_second_time_nothing_is_new" {
  assert {
    condition     = output.ids == run.every_machine_has_an_id_and_user_data.ids
    error_message = "An id stays what it is."
  }
}

run "a_token_that_is_none_is_refused" {
  command = plan
  variables {
    join_token = "secret"
  }
  expect_failures = [var.join_token]
}
