package pairs

import "testing"

// TestPatchBeforeMinor: a line for one patch of Consul counts for that one, the
// line for its minor version for the others.
func TestPatchBeforeMinor(t *testing.T) {
	t.Parallel()
	lines := []pair{{consul: "1.22.9", envoy: "1.39.0"}, {consul: "1.22", envoy: "1.38.2"}}
	for consul, want := range map[string]string{"1.22.9": "1.39.0", "1.22.90": "1.38.2", "1.22.1": "1.38.2", "1.2.9": ""} {
		if found, known := find(lines, consul); found.envoy != want || known != (want != "") {
			t.Errorf("with consul %s goes envoy %q, want %q", consul, found.envoy, want)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		consul, envoy string
		good          bool
	}{
		{Consul, Envoy, true},
		{Consul, EnvoyFor(Consul), true},
		{Consul, "1.35.9", true},
		{Consul, "1.35.1", true},
		{Consul, "1.35.10", false},
		{Consul, "1.20.0", false},
		{"2.0.2", EnvoyFor("2.0.2"), true},
		{"9.9.9", Envoy, false},
	} {
		if said := Check(test.consul, test.envoy); (said == "") != test.good {
			t.Errorf("consul %s with envoy %s: %q", test.consul, test.envoy, said)
		}
	}
}
