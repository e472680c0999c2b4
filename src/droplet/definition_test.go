package droplet

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestBothSpellings: the name of every field of a definition is its key in Consul's
// files without underscores. A check's id alone has another name in the API.
func TestBothSpellings(t *testing.T) {
	t.Parallel()
	seen := map[reflect.Type]bool{}
	var look func(reflect.Type)
	look = func(part reflect.Type) {
		switch part.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			look(part.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		if seen[part] || part == reflect.TypeFor[Duration]() {
			return
		}
		seen[part] = true
		for _, field := range reflect.VisibleFields(part) {
			key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			plain := strings.ReplaceAll(key, "_", "")
			if !field.Anonymous && !strings.EqualFold(plain, field.Name) && field.Name != "CheckID" {
				t.Errorf("%s.%s is %q in Consul's files", part.Name(), field.Name, key)
			}
			look(field.Type)
		}
	}
	look(reflect.TypeFor[Definitions]())
	if len(seen) < 12 {
		t.Errorf("there are %d types of parts", len(seen))
	}
}

// TestAPI: what Consul's files and its API call by two names has both, what is
// somebody's own has its own, and what is false on purpose is said.
func TestAPI(t *testing.T) {
	t.Parallel()
	const file = `{"id":"shop","socket_path":"/s","meta":{"a_b":"c"},"tagged_addresses":{"lan_ipv4":{"address":"192.0.2.1","port":1}},` +
		`"checks":[{"id":"shop:up","name":"up","h2ping":"x","h2ping_use_tls":false,"interval":"60s","header":{"X_Y":["z"]}}],` +
		`"connect":{"sidecar_service":{"port":21000,"proxy":{"config":{"bind_port":2},"access_logs":{"enabled":true,"json_format":"{}"}}}}}`
	const want = `{"Checks":[{"CheckID":"shop:up","H2Ping":"x","H2PingUseTLS":false,"Header":{"X_Y":["z"]},"Interval":"60s","Name":"up"}],` +
		`"Connect":{"SidecarService":{"Port":21000,"Proxy":{"AccessLogs":{"Enabled":true,"JSONFormat":"{}"},"Config":{"bind_port":2}}}},` +
		`"ID":"shop","Meta":{"a_b":"c"},"SocketPath":"/s","TaggedAddresses":{"lan_ipv4":{"address":"192.0.2.1","port":1}}}`
	var definition Definition
	if err := json.Unmarshal([]byte(file), &definition); err != nil {
		t.Fatal(err)
	}
	if again, err := json.Marshal(definition); string(again) != file || err != nil {
		t.Errorf("%v, written again it is\n%s, want\n%s", err, again, file)
	}
	if got, err := json.Marshal(API(definition)); string(got) != want || err != nil {
		t.Errorf("%v, for the API it is\n%s, want\n%s", err, got, want)
	}
	if got := definition.Checks[0].Interval.Duration; got != time.Minute {
		t.Errorf("the interval is %v", got)
	}
}
