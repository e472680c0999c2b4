service_bindng = "consul"
service "shop" {
  protcol = "http"
  weights {
    pasing = 3
  }
  tagged_address "wan" {
    address = "shop.example.com"
    prt     = 80
  }
  check "health" {
    http    = "/health"
    intervl = "5s"
  }
  sidecar {
    prot = 21000
    check "up" {
      tcp      = true
      time_out = "2s"
    }
    expose {
      check = true
      path "/metrics" {
        listener_port = 9102
        local_port    = 9000
      }
    }
    access_logs {
      enable = true
    }
  }
  upstream "billing" {
    conect_timeout = "1s"
    limits {
      max_conections = 3
    }
    passive_health_check {
      max_failure = 3
    }
  }
}
consul {
  retry-join = ["a"]
  ports {
    htttp = 8501
  }
}
envoy {
  concurency = 2
  metrics {
    prometeus = "0.0.0.0:9102"
  }
}
